"""Group normalisation above a point gets an input that its kernel can take; nothing else changes."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tinydfa import attach


class Turned(nn.Module):
    """Hands on an image with height and width exchanged, as a view."""

    def forward(self, input: Tensor) -> Tensor:
        return input.transpose(2, 3)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    parts = [nn.Conv2d(3, 4, 3), nn.Tanh(), Turned(), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(4 * 36, 3)]
    return nn.Sequential(*parts).double()


def arriving(net: nn.Sequential) -> list[bool]:
    """Whether what arrives at the normalisation is contiguous, in every pass from now on."""
    found: list[bool] = []
    net[3].register_forward_hook(lambda module, inputs, output: found.append(inputs[0].is_contiguous()))
    return found


def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(5, 3, 8, 8, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])


def test_what_asks_for_no_gradient_arrives_contiguous_and_the_gradients_are_the_same():
    x, y = batch()
    net, plain = network(), network()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tinydfa.attaching.attachment.guard", lambda model: [])
        attach(plain, "dfa", points=["1"])
    attach(net, "dfa", points=["1"])
    guarded, before = arriving(net), arriving(plain)
    for model in (net, plain):
        cross_entropy(model(x), y).backward()
    assert (guarded, before) == ([True], [False])
    for ours, theirs in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=0)


def test_backpropagation_evaluation_and_a_detached_model_are_left_alone():
    x, y = batch()
    net = network()
    attachment = attach(net, "dfa", points=["1"])
    found = arriving(net)
    with torch.no_grad():
        net(x)
    with attachment.backprop():
        cross_entropy(net(x), y).backward()
    attachment.detach()
    copy.deepcopy(net)(x)
    assert found == [False, False, False]
