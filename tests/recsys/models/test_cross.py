"""The cross network: its states have the gradients of their formula, and cost no more than is asked for."""

import pytest
import torch

from recsys.models.cross import CrossNetwork, Stretched
from tinydfa import Method, attach


def test_states_of_a_cross_network_have_the_gradients_of_their_formula():
    """Where layers share a gradient, where they do not, and where one has none."""
    torch.manual_seed(0)
    x0, a, c = (torch.randn(5, 3), torch.randn(5, 4), torch.randn(4, 3))
    shared, other, last = torch.randn(5, 6), torch.randn(5, 3), torch.randn(5, 3)
    found = []
    for states_of in (
        Stretched.apply,
        lambda x0, a, c: [a[:, k, None] * x0 + c[k] for k in range(4)],
    ):
        given = [tensor.clone().requires_grad_() for tensor in (x0, a, c)]
        states = states_of(*given)
        torch.testing.assert_close(states[2], a[:, 2, None] * x0 + c[2])
        kept = [states[0], states[1], states[3]]
        torch.autograd.backward(kept, [shared[:, :3], shared[:, :3], last])
        torch.autograd.backward(states_of(*given)[:2], [shared[:, :3], shared[:, 3:]])
        torch.autograd.backward(states_of(*given)[2:3], [other])
        found.append([tensor.grad for tensor in given])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("method", [Method.BP, Method.DFA])
def test_without_gradients_the_last_state_is_all_that_is_computed(method, monkeypatch):
    torch.manual_seed(0)
    net, x0 = CrossNetwork(inputs=4, layers=3), torch.randn(5, 4)
    attach(net, method)
    expected, made, apply = net(x0), [], Stretched.apply

    def noted(x0, a, c):
        made.append(len(c))
        return apply(x0, a, c)

    monkeypatch.setattr(Stretched, "apply", noted)
    with torch.no_grad():
        torch.testing.assert_close(net(x0), expected)
    assert made == [1]
