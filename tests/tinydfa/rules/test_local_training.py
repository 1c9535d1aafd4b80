"""Local errors in training: memory, resuming, measuring, and what is refused."""

from __future__ import annotations

import io

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.tinydfa.learning import B, C
from tests.tinydfa.rules.local import PRED, SIM, Tanh, data
from tinydfa import Attachment, attach, doctor, measure_alignment
from tinydfa.errors import DFAError, MissingTargetError, OptionError, ShapeError
from tinydfa.rules import LES, Calibrated


@pytest.mark.parametrize("memory", ["replay", "forward"])
@pytest.mark.parametrize("rule", [PRED, LES(lr=0.03, every=2), SIM], ids=["pred", "every other pass", "predsim"])
def test_gradients_and_feedback_are_the_same_bit_for_bit_without_stored_graphs(rule, memory):
    x, y = data()
    found = []
    for choice in (None, memory):
        model = Tanh()
        attachment = attach(model, rule, memory=choice)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(5):
            optimizer.zero_grad()
            attachment.target = y
            cross_entropy(model(x), y).backward()
            optimizer.step()
        found.append([*model.parameters(), attachment.effective_feedback()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_a_forward_pass_that_raised_leaves_nothing_behind():
    x, y = data()
    model, broken = Tanh(), Tanh()
    found = []
    for net in (model, broken):
        attachment = attach(net, "les", memory="forward")
        for number in range(3):
            if net is broken and number == 1:
                hook = net.middle.register_forward_hook(lambda *_: 1 / 0)
                attachment.target = y
                with pytest.raises(ZeroDivisionError):
                    net(-x)
                hook.remove()
            net.zero_grad()
            attachment.target = y
            cross_entropy(net(x), y).backward()
        found.append(attachment.effective_feedback())
    assert torch.equal(*found)


def test_looking_at_a_model_teaches_nothing():
    x, y = data()
    model = Tanh()
    attachment = attach(model, SIM)

    def loss(net: nn.Module, batch: tuple[Tensor, Tensor] = (x, y)) -> Tensor:
        attachment.target = batch[1]
        return cross_entropy(net(batch[0]), batch[1])

    loss(model).backward()
    before = attachment.state_dict()["learner"]
    aligned = measure_alignment(model, loss)
    assert doctor(model, (x, y), loss, compile=False).findings == []
    after = attachment.state_dict()["learner"]
    assert torch.equal(before["matrix"], after["matrix"])
    assert torch.equal(before["memory"]["points.0"]["map"], after["memory"]["points.0"]["map"])
    assert set(aligned) >= {"points.0", "points.1"}
    assert aligned["points.1"].norm_ratio > 0


def test_exact_passes_train_exactly_and_the_others_locally():
    x, y = data()
    exact, local, model = Tanh(), Tanh(), Tanh()
    cross_entropy(exact(x), y).backward()
    attach(local, "les").target = y
    cross_entropy(local(x), y).backward()
    attachment = attach(model, Calibrated("les", exact_every=2))
    for expected in (exact, local):
        model.zero_grad()
        attachment.target = y
        cross_entropy(model(x), y).backward()
        torch.testing.assert_close(model.low.weight.grad, expected.low.weight.grad)


def test_targets_that_are_no_classes_are_refused():
    x, y = data()
    for outputs, target, says in (
        (C, torch.randn(B, C, dtype=torch.float64), "les reads class targets, .* class ids, or shares of the classes"),
        (C, torch.full((B, C), torch.nan), "les reads class targets"),
        (1, torch.full((B, 1), 3.7), "les reads class targets.* 0 or 1; for a regression use"),
        (C, y + 2, "les was given class id"),
        (C, torch.zeros(5), "les was given a target of shape"),
    ):
        model = Tanh(outputs)
        attach(model, "les").target = target
        with pytest.raises(ShapeError, match=says):
            model(x).sum().backward()
    attach(model := Tanh(), "les")
    with pytest.raises(MissingTargetError, match="les reads the targets"):
        model(x).sum().backward()


def test_several_outputs_are_refused():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.low, self.one, self.two = nn.Linear(6, 5), nn.Linear(5, 2), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            h = self.low(x)
            return {"one": self.one(h), "two": self.two(h)}

    model = Two()
    attachment = attach(model, "les", points=["low"], output=["[one]", "[two]"])
    attachment.target = torch.zeros(4, dtype=torch.long)
    with pytest.raises(ShapeError, match=r"les reads one class a sample off every point.* at 2 outputs"):
        model(torch.randn(4, 6))


@pytest.mark.parametrize("other", [LES(similarity=0.5), LES(similarity=0.5, width=3)])
def test_a_state_goes_on_with_the_options_it_was_saved_with(other):
    x, y = data()
    trained = attach(Tanh(), LES() if other.width > 3 else SIM)
    trained.target = y
    trained.model(x).sum().backward()
    going = attach(Tanh(), other)
    going.load_state_dict(trained.state_dict())
    going.target = y
    with pytest.raises(DFAError, match="Go on with the options of then, or attach anew"):
        going.model(x).sum().backward()


def test_a_run_that_was_saved_goes_on_as_if_it_had_not_been():
    x, y = data()
    model, other = Tanh(), Tanh()
    one, two = attach(model, SIM), attach(other, SIM, seed=9)

    def step(net: Tanh, attachment: Attachment) -> None:
        net.zero_grad()
        attachment.target = y
        cross_entropy(net(x), y).backward()

    step(model, one)
    file = io.BytesIO()
    torch.save(one.state_dict(), file)
    file.seek(0)
    two.load_state_dict(torch.load(file, weights_only=True))
    for _ in range(3):
        step(model, one), step(other, two)
        assert all(torch.equal(p.grad, q.grad) for p, q in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"lr": 0.0}, "LES: lr is a number above 0"),
        ({"similarity": 1.0}, "LES: similarity is a share, at least 0 and below 1"),
        ({"width": 1}, "LES: width is a whole number, at least 2"),
        ({"every": 0}, "LES: every is a whole number, at least 1"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(options, says):
    with pytest.raises(OptionError, match=says):
        LES(**options)
