"""Feedback that imitates the network: against a read-out that torch trains by its own Adam."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from tests.tinydfa.learning import backprop, data, gradients, same
from tests.tinydfa.rules.test_estimated import C, Tanh
from tinydfa import DFALayer, attach
from tinydfa.errors import OptionError
from tinydfa.rules import LAS


def values(model: Tanh, x: Tensor) -> tuple[list[Tensor], Tensor]:
    """What passes the two points, and the output."""
    with torch.no_grad():
        low = torch.tanh(model.low(x))
        middle = torch.tanh(model.middle(low))
        return [low, middle], model.top(middle)


def test_the_feedback_takes_the_steps_of_a_read_out_trained_by_adam():
    model, (x, y) = Tanh(), data()
    with torch.no_grad():
        drawn = Tanh()
        first = attach(drawn, "fitted")  # a look without a step of the feedback
        drawn.eval()(x)
        beginning = first.effective_feedback().split([5, 4], dim=1)
    readers = [nn.Linear(F.shape[1], C, bias=False).double() for F in beginning]
    for reader, F in zip(readers, beginning, strict=True):
        reader.weight.data.copy_(F)
    optimizers = [torch.optim.Adam(reader.parameters(), lr=0.03) for reader in readers]
    attachment = attach(model, LAS(lr=0.03))
    for _ in range(4):
        h, output = values(model, x)
        for reader, optimizer, value in zip(readers, optimizers, h, strict=True):
            optimizer.zero_grad()
            mse_loss(reader(value), output).backward()
            optimizer.step()
        gradients(model, x, y)
        for own, reader in zip(attachment.effective_feedback().split([5, 4], dim=1), readers, strict=True):
            torch.testing.assert_close(own, reader.weight.detach())
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.sub_(0.1 * parameter.grad)


def test_below_a_linear_layer_the_feedback_becomes_that_layers_weight():
    model, (x, y) = Tanh(), data(400)
    with torch.no_grad():
        model.top.bias.zero_()
    attachment = attach(model, LAS(lr=0.05))
    for _ in range(600):
        model(x)
    own = attachment.effective_feedback()[:, 5:]
    torch.testing.assert_close(own, model.top.weight.detach(), rtol=0, atol=1e-3)
    same(gradients(model, x, y)[2:], backprop(model, x, y)[2:], rtol=0.02)  # all above the first point


def test_a_step_is_taken_in_the_passes_that_look_alone():
    model, (x, _) = Tanh(), data()
    attachment = attach(model, LAS(probe_every=3))
    seen = []
    for _ in range(5):
        model(x)
        seen.append(attachment.effective_feedback())
    assert [torch.equal(a, b) for a, b in pairwise(seen)] == [True, True, False, True]


class Pooled(nn.Module):
    """Nine rows a sample, above which the network is linear; ``[B, 9, 6]`` to ``[B, 3]``."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.point, self.top = nn.Linear(6, 5), DFALayer(batch_dims=(0, 1)), nn.Linear(5, C, bias=False)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.top(self.point(self.low(x)).mean(dim=1))
        return out


def test_rows_of_a_sample_that_read_it_alike_receive_backpropagations_signal():
    torch.manual_seed(0)
    model, (x, y) = Pooled(), data(300, 1)
    x = x.expand(300, 9, 6).contiguous()
    expected = backprop(model, x, y)
    attach(model, LAS(lr=0.05))
    for _ in range(800):
        model(x)
    same(gradients(model, x, y), expected, rtol=0.02)


def test_exact_passes_train_exactly_and_leave_the_feedback_to_the_looks():
    model, (x, y) = Tanh(), data()
    attach(model, LAS(exact_every=2))
    exact = backprop(Tanh(), x, y)
    same(gradients(model, x, y), exact, rtol=1e-12)
    assert not torch.allclose(gradients(model, x, y)[0], exact[0])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: LAS(lr=0.0), "LAS: lr is a number above 0"),
        (lambda: LAS(probe_every=0), "LAS: probe_every is a whole number, at least 1"),
        (lambda: LAS(exact_every=-1), "LAS: exact_every is a whole number, at least 0"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(make, says):
    with pytest.raises(OptionError, match=says):
        make()
