"""Hooks of other tools at a module that is a feedback point see what the module returns, and the signal it receives."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.draws import feedback_generator
from tests.tinydfa.nets import batch, error_of, fill
from tinydfa import Feedback, attach

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing")


def net() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 7), nn.Linear(7, 3)).double()
    fill(model, torch.Generator().manual_seed(0))
    return model


def data() -> tuple[Tensor, Tensor]:
    x, y = batch()
    return x.double(), y


def signals(model: nn.Sequential, x: Tensor, y: Tensor) -> list[Tensor]:
    """``e @ F[:, :d] / sqrt(D)`` at the two points, D = 7."""
    drawn = (torch.rand(3, 7, generator=feedback_generator(0)) * 2 - 1).double()
    with torch.no_grad():
        output = model[2](model[1](model[0](x)))
    error = torch.exp(output - output.logsumexp(1, keepdim=True))
    error[torch.arange(len(y)), y] -= 1
    return [error / len(y) @ drawn[:, :width] / 7**0.5 for width in (5, 7)]


@pytest.mark.parametrize("order", ["hook first", "attach first"])
def test_a_full_backward_hook_sees_the_signal_and_the_gradient_of_the_input(order):
    model, (x, y) = net(), data()
    x.requires_grad_()
    expected = signals(model, x, y)
    seen = {}
    attached = [] if order == "hook first" else [attach(model, "dfa", points=["0", "1"])]
    for number in (0, 1):
        model[number].register_full_backward_hook(lambda m, i, o, number=number: seen.update({number: (i, o)}))
    attached or attach(model, "dfa", points=["0", "1"])
    cross_entropy(model(x), y).backward()
    for number in (0, 1):
        torch.testing.assert_close(seen[number][1][0], expected[number])
    torch.testing.assert_close(seen[0][0][0], expected[0] @ model[0].weight)  # the input asks for its gradient
    assert seen[1][0] == (None,)  # that of layer 1 is detached by the point below
    torch.testing.assert_close(model[1].bias.grad, expected[1].sum(0))


def test_a_full_backward_pre_hook_may_put_another_signal_in_its_place():
    model, (x, y) = net(), data()
    expected = signals(model, x, y)
    model[1].register_full_backward_pre_hook(lambda m, o: (o[0] * 3,))
    attach(model, "dfa", points=["0", "1"])
    cross_entropy(model(x), y).backward()
    torch.testing.assert_close(model[1].bias.grad, 3 * expected[1].sum(0))
    torch.testing.assert_close(model[0].bias.grad, expected[0].sum(0))


def test_a_full_backward_hook_may_put_another_gradient_of_the_input_in_its_place():
    model, (x, y) = net(), data()
    x.requires_grad_()
    model[0].register_full_backward_hook(lambda m, i, o: (torch.full_like(i[0], 2.0),))
    attach(model, "dfa", points=["0", "1"])
    cross_entropy(model(x), y).backward()
    assert bool((x.grad == 2).all())


def test_global_backward_hooks_see_every_point():
    model, (x, y) = net(), data()
    expected = signals(model, x, y)
    attach(model, "dfa", points=["0", "1"])
    seen = {}
    handle = nn.modules.module.register_module_full_backward_hook(lambda m, i, o: seen.update({m: o[0]}))
    try:
        cross_entropy(model(x), y).backward()
    finally:
        handle.remove()
    for number in (0, 1):
        torch.testing.assert_close(seen[model[number]], expected[number])


def test_per_sample_gradients_from_hooks_add_up_to_the_gradient():
    """As Opacus does it: activations by forward hooks, signals by backward hooks, an outer product a sample."""
    model, (x, y) = net(), data()
    inputs, found = {}, {}

    def backward(layer, grads_in, grads_out):
        found[layer] = torch.einsum("bo,bi->boi", grads_out[0], inputs[layer])

    attach(model, "dfa", points=["0", "1"])
    for layer in model:
        layer.register_forward_hook(lambda m, i, o: inputs.update({m: i[0].detach()}))
        layer.register_full_backward_hook(backward)
    cross_entropy(model(x), y).backward()
    for layer in model:
        torch.testing.assert_close(found[layer].sum(0), layer.weight.grad)


def test_a_forward_hook_set_after_attach_meets_what_the_module_returns():
    model, (x, y) = net(), data()
    expected = signals(model, x, y)
    attach(model, "dfa", points=["0", "1"])
    kept = []

    def keep(module, inputs, output):
        output.retain_grad()
        kept.append(output)

    handle = model[1].register_forward_hook(keep)
    for _ in range(2):
        kept.clear()
        cross_entropy(model(x), y).backward()
        torch.testing.assert_close(kept[0].grad, expected[1])
    handle.remove()
    cross_entropy(model(x), y).backward()
    assert len(kept) == 1


def test_an_output_changed_by_a_later_hook_is_the_point():
    model, (x, y) = net(), data()
    expected = signals(model, x, y)
    attach(model, "shallow", points=["1"])
    model[1].register_forward_hook(lambda m, i, o: o + m.weight.sum())
    cross_entropy(model(x), y).backward()
    assert model[1].weight.grad is None  # a path around the point would train it
    assert expected


def test_copies_keep_their_own_hooks_in_order():
    model, (x, y) = net(), data()
    attach(model, "dfa", points=["0", "1"])
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        kept = []
        other[1].register_forward_hook(lambda m, i, o, kept=kept: kept.append(o.requires_grad))
        cross_entropy(other(x), y).backward()
        assert kept == [True]
        assert list(model[1]._forward_hooks) != list(other[1]._forward_hooks)


def test_a_point_at_one_of_several_outputs_calls_the_hook_with_its_place():
    class Two(nn.Linear):
        def forward(self, x):
            return "text", super().forward(x)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.two, self.top = Two(6, 5), nn.Linear(5, 3)

        def forward(self, x):
            return self.top(self.two(x)[1])

    model, (x, y) = Model(), batch()
    seen = []
    model.two.register_full_backward_hook(lambda m, i, o: seen.append(o))
    attach(model, "dfa", points=["two"], feedback=Feedback(seed=1))
    output = model(x)
    cross_entropy(output, y).backward()
    error = error_of(output.detach(), y)
    drawn = torch.rand(3, 5, generator=feedback_generator(1)) * 2 - 1
    assert seen[0][0] is None
    torch.testing.assert_close(seen[0][1], error @ drawn / 5**0.5)
