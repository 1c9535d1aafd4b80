"""Under `torch.func` (grad, vmap, jacrev, ensembles) a rule gives the gradients that it gives outside, or says no."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, jvp, stack_module_state, vmap
from torch.nn.functional import cross_entropy

from tests.tinydfa.nets import Mlp, batch, gradients_of, mlp_rule
from tinydfa import DFAError, attach

PURE = ["bp", "shallow", "dfa", "sdfa", "tdfa", "drtp", "fa", "usf", "frsf"]


def attached(method: str, seed: int = 0):
    net = Mlp(seed=seed).double()
    return net, attach(net, method)


def data() -> tuple[Tensor, Tensor]:
    x, y = batch()
    return x.double(), y


def loss_of(net, attachment):
    def loss(parameters, x, y):
        attachment.target = y
        return cross_entropy(functional_call(net, parameters, (x,)), y)

    return loss


def weights(net: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in net.named_parameters()}


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Equal gradients; one that is not there outside is zero inside."""
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected.get(name, torch.zeros_like(gradient)), check_dtype=False)


@pytest.mark.parametrize("first", ["inside", "outside"])
@pytest.mark.parametrize("method", PURE)
def test_grad_gives_the_gradient_of_backward(method, first):
    """Also where the first pass of all, which draws the feedback, is inside."""
    (net, attachment), (x, y) = attached(method), data()
    found = {}
    if first == "inside":
        found = grad(loss_of(net, attachment))(weights(net), x, y)
    attachment.target = y
    cross_entropy(net(x), y).backward()
    same(found or grad(loss_of(net, attachment))(weights(net), x, y), gradients_of(net))


def test_grad_is_the_rule_written_by_hand():
    (net, attachment), (x, y) = attached("dfa"), data()
    found = grad(loss_of(net, attachment))(weights(net), x, y)
    same(found, mlp_rule(net, x, y, attachment.head.feedback_matrix.double(), lambda e: e))


@pytest.mark.parametrize("method", ["dfa", "sdfa", "drtp", "fa", "frsf"])
def test_gradients_of_single_samples(method):
    """vmap over grad, as for influence functions and private training: what each sample gives alone."""
    (net, attachment), (x, y) = attached(method), data()
    loss = loss_of(net, attachment)
    found = vmap(grad(lambda p, x, y: loss(p, x[None], y[None])), (None, 0, 0))(weights(net), x, y)
    for number in range(len(y)):
        net.zero_grad()
        attachment.target = y[number : number + 1]
        cross_entropy(net(x[number : number + 1]), y[number : number + 1]).backward()
        same({name: each[number] for name, each in found.items()}, gradients_of(net))


@pytest.mark.parametrize("how", ["backward", "grad"])
@pytest.mark.parametrize("method", ["dfa", "sdfa", "fa", "usf", "shallow"])
def test_every_member_of_an_ensemble_gets_its_own_gradient(method, how):
    x, y = data()
    nets = [Mlp(seed=seed).double() for seed in range(3)]
    base, attachment = attached(method, seed=9)
    parameters, buffers = stack_module_state(nets)

    def losses(parameters):
        outputs = vmap(lambda p, b: functional_call(base, (p, b), (x,)), (0, 0))(parameters, buffers)
        return sum(cross_entropy(output, y) for output in outputs)

    if how == "grad":
        found = grad(losses)({name: p.detach() for name, p in parameters.items()})
    else:
        losses(parameters).backward()
        found = {name: p.grad for name, p in parameters.items() if p.grad is not None}
    assert method == "shallow" or len(found) == len(parameters)
    state = attachment.state_dict()
    for number, net in enumerate(nets):
        alone = attach(net, method)
        alone.load_state_dict(state)
        cross_entropy(net(x), y).backward()
        same({name: each[number] for name, each in found.items()}, gradients_of(net))


def test_jacrev_feeds_back_every_output():
    """Row r of the Jacobian is the gradient of output r alone: with e a unit vector."""
    (net, _), (x, _) = attached("dfa"), data()
    found = jacrev(lambda p: functional_call(net, p, (x[:1],))[0])(weights(net))
    for row in range(3):
        net.zero_grad()
        net(x[:1])[0, row].backward()
        same({name: each[row] for name, each in found.items()}, gradients_of(net))


def test_what_changes_state_in_every_pass_is_refused():
    for method in ("brsf", "dkp"):
        (net, attachment), (x, y) = attached(method), data()
        with pytest.raises(DFAError, match=r"(?s)torch.func.*must change nothing.*loss.backward\(\)"):
            grad(loss_of(net, attachment))(weights(net), x, y)


def test_forward_mode_is_refused():
    (net, _), (x, y) = attached("dfa"), data()
    parameters = weights(net)
    with pytest.raises(DFAError, match=r"(?s)no forward-mode derivative.*backprop\(\)"):
        jvp(lambda p: cross_entropy(functional_call(net, p, (x,)), y), (parameters,), (parameters,))


def test_a_pass_inside_a_transform_leaves_passes_outside_as_they_were():
    (net, attachment), (x, y) = attached("dfa"), data()
    cross_entropy(net(x), y).backward()
    before = gradients_of(net)
    grad(loss_of(net, attachment))(weights(net), x, y)
    net.zero_grad()
    cross_entropy(net(x), y).backward()
    assert all(torch.equal(gradient, before[name]) for name, gradient in gradients_of(net).items())
