"""Calibration: which passes are exact, and that the others are those of the rule it wraps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from tests.tinydfa.nets import Mlp, assert_gradients, batch, gradients_of, mlp_rule, one_hot
from tinydfa import Feedback, Learning, attach
from tinydfa.errors import OptionError
from tinydfa.rules import DKP, Calibrated, Seen

SIGNALS = {"dfa": lambda e, y: e, "sdfa": lambda e, y: e.sign(), "drtp": lambda e, y: one_hot(y)}


def step(net: nn.Module, attachment, x: Tensor, y: Tensor) -> None:
    net.zero_grad()
    attachment.target = y
    cross_entropy(net(x), y).backward()


def exact(x: Tensor, y: Tensor) -> dict[str, Tensor]:
    net = Mlp()
    cross_entropy(net(x), y).backward()
    return gradients_of(net)


@pytest.mark.parametrize("rule", SIGNALS)
def test_one_pass_in_many_is_exact_and_the_others_are_the_rules(rule):
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, Calibrated(rule, exact_every=3), feedback=Feedback(seed=3))
    drawn = Feedback(seed=3).draw(3, 7)
    by_rule = mlp_rule(Mlp(), x, y, drawn, lambda e: SIGNALS[rule](e, y))
    for number in range(7):
        step(net, attachment, x, y)
        assert_gradients(net, exact(x, y) if number % 3 == 0 else by_rule)


def test_shallow_training_can_be_calibrated():
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, Calibrated("shallow", exact_every=2))
    step(net, attachment, x, y)
    assert_gradients(net, exact(x, y))
    net.zero_grad()
    step(net, attachment, x, y)
    assert {name for name, gradient in gradients_of(net).items() if gradient.any()} == {"top.weight", "top.bias"}


def test_a_rule_that_learns_goes_on_learning_in_exact_passes():
    plain, calibrated, (x, y) = Mlp(), Mlp(), batch()
    one, two = attach(plain, DKP(lr=0.5)), attach(calibrated, Calibrated(DKP(lr=0.5), exact_every=2))
    for _ in range(3):
        step(plain, one, x, y)
        step(calibrated, two, x, y)  # the weights stay, so that the errors are the same
        torch.testing.assert_close(two.effective_feedback(), one.effective_feedback())
    assert_gradients(calibrated, exact(x, y))


def test_an_exact_pass_shows_the_wrapped_rule_the_gradient():
    class Reads(Learning):
        every = 0

        def moments(self, seen: Seen) -> dict[str, Tensor]:
            return {"both": seen.error.T @ seen.gradient}

        def update(self, feedback: Tensor, moments: dict[str, Tensor], memory: dict[str, Tensor]) -> None:
            feedback.copy_(moments["both"])

    net, (x, y) = Mlp(), batch()
    attachment = attach(net, Calibrated(Reads()))
    step(net, attachment, x, y)
    h = x
    with torch.no_grad():
        for layer in net.hidden:
            h = torch.tanh(layer(h))
        error = (net.top(h).softmax(1) - one_hot(y)) / len(y)
    torch.testing.assert_close(attachment.effective_feedback()[:, -7:], error.T @ error @ net.top.weight.detach())


@pytest.mark.parametrize("whole", [False, True])
def test_an_exact_pass_through_checkpoints_is_exact(whole):
    class Saved(Mlp):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if whole else checkpoint(super().forward, x, use_reentrant=False)

    net, (x, y) = Saved(), batch()
    attach(net, "calibrated")
    output = checkpoint(net, x, use_reentrant=False) if whole else net(x)
    cross_entropy(output, y).backward()
    assert_gradients(net, exact(x, y))


def test_a_saved_state_knows_which_pass_is_exact_next():
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, Calibrated("dfa", exact_every=3))
    for _ in range(2):
        step(net, attachment, x, y)
    fresh = Mlp()
    other = attach(fresh, Calibrated("dfa", exact_every=3))
    other.load_state_dict(attachment.state_dict())
    is_exact = []
    for _ in range(3):
        step(fresh, other, x, y)
        is_exact.append(torch.allclose(fresh.hidden[0].weight.grad, exact(x, y)["hidden.0.weight"]))
    assert is_exact == [False, True, False]


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("bp", "bp does not cut the graph"),
        ("fa", "fa does not cut the graph"),
        ("fitted", "fitted has exact passes itself"),
        ("calibrated", "calibrated has exact passes itself"),
    ],
)
def test_a_rule_that_cannot_be_calibrated_is_refused(rule, says):
    with pytest.raises(OptionError, match=says):
        Calibrated(rule)
