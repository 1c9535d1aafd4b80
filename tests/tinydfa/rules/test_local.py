"""Local errors: against layers that torch trains one by one, each by a loss of its own and an Adam of its own."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cosine_similarity, cross_entropy, mse_loss, one_hot

from tests.tinydfa.learning import B, C, Tokens
from tests.tinydfa.rules.local import PRED, SIM, Tanh, data
from tinydfa import Attachment, Feedback, attach
from tinydfa.rules import LES, Here, Local


def begun(model: nn.Module, x: Tensor, rule: LES) -> tuple[list[Tensor], list[Tensor]]:
    """What F and S of the points begin with, by a model that is not trained."""
    attachment = attach(model, rule)
    with torch.no_grad():
        model(x)
    learner = attachment.head.learner
    read = [learner.feedback_of(name).clone() for name in attachment.points]
    maps = [learner.memory[name]["map"].clone() for name in attachment.points] if rule.similarity else []
    attachment.detach()
    return read, maps


def cosines(rows: Tensor) -> Tensor:
    centred = rows - rows.mean(dim=1, keepdim=True)
    return cosine_similarity(centred[:, None], centred[None], dim=2)


def local_loss(h: Tensor, target: Tensor, read: Tensor, through: Tensor | None, weight: float) -> Tensor:
    """Of a layer `h` whose rows have the classes or shares `target`; -1 where there is none."""
    if not target.is_floating_point():
        h, target = h[target >= 0], target[target >= 0]
    if len(read) == 1:
        loss = binary_cross_entropy_with_logits((h @ read.T)[:, 0], target.double())
    else:
        loss = cross_entropy(h @ read.T, target)
    if through is None:
        return loss
    shares = target if target.is_floating_point() else one_hot(target, max(len(read), 2)).double()
    return (1 - weight) * loss + weight * mse_loss(cosines(h @ through), cosines(shares))


def by_hand(model: Tanh, x: Tensor, target: Tensor, read: list[Tensor], maps: list[Tensor], weight: float) -> None:
    """Add the gradients of the layers below the points, of F and of S."""
    low = torch.tanh(model.low(x))
    middle = torch.tanh(model.middle(low.detach()))
    for number, h in enumerate((low, middle)):
        local_loss(h, target, read[number], maps[number] if maps else None, weight).backward()


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7, check_dtype=False)  # F is drawn in float32


def shares(samples: int) -> Tensor:
    drawn = torch.rand(samples, C, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return drawn / drawn.sum(dim=1, keepdim=True)


TARGETS = {
    "class ids": lambda y: y,
    "some without a class": lambda y: torch.where(torch.arange(B) % 3 == 1, -1, y),
    "shares": lambda y: shares(len(y)),
}


@pytest.mark.parametrize("kind", [*TARGETS, "one output"])
@pytest.mark.parametrize("rule", [PRED, SIM], ids=["pred", "predsim"])
def test_layers_readers_and_maps_learn_as_if_each_were_trained_alone(rule, kind):
    outputs = 1 if kind == "one output" else C
    model, twin = Tanh(outputs), Tanh(outputs)
    x, y = data(classes=2 if outputs == 1 else C)
    target = TARGETS.get(kind, lambda y: y)(y)
    read, maps = begun(Tanh(outputs), x, rule)
    learned = [part.requires_grad_() for part in (*read, *maps)]
    adam = torch.optim.Adam(learned, lr=0.03)
    hidden = [*twin.low.parameters(), *twin.middle.parameters()]
    attachment = attach(model, rule)
    for _ in range(3):
        adam.zero_grad(), twin.zero_grad(), model.zero_grad()
        by_hand(twin, x, target, read, maps, rule.similarity)
        attachment.target = target
        model(x).square().mean().backward()  # whatever the loss at the output
        for own, expected in zip([*model.low.parameters(), *model.middle.parameters()], hidden, strict=True):
            close(own.grad, expected.grad)
            with torch.no_grad():
                own.sub_(0.3 * own.grad)
                expected.sub_(0.3 * expected.grad)
        adam.step()
        learner = attachment.head.learner
        found = [learner.feedback_of(name) for name in attachment.points]
        found += [learner.memory[name]["map"] for name in attachment.points] if maps else []
        for own, expected in zip(found, learned, strict=True):
            close(own, expected.detach())


def test_with_one_hidden_layer_that_is_read_as_the_output_reads_it_the_signal_is_backpropagations():
    def model() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, C, bias=False)).double()

    x, y = data()
    exact, local = model(), model()
    attachment = attach(local, "les", points=["1"])
    with torch.no_grad():
        local(x)
        attachment.head.learner.matrix.copy_(local[2].weight)
    attachment.target = y
    for net in (exact, local):
        cross_entropy(net(x), y).backward()
    for own, expected in zip(local.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(own.grad, expected.grad)


def test_the_first_step_sends_a_signal_and_feedback_begins_as_that_of_dfa():
    x, y = data()
    model = Tanh()
    attachment = attach(model, "les")
    attachment.target = y
    model(x).sum().backward()
    assert model.low.weight.grad.norm() > 0
    drawn = attach(Tanh(), "dkp", feedback=attachment.feedback)
    drawn.model(x)
    fresh = attach(Tanh(), "les")
    fresh.model(x)
    torch.testing.assert_close(fresh.effective_feedback(), drawn.effective_feedback())


@pytest.mark.parametrize("rule", [PRED, SIM], ids=["pred", "predsim"])
def test_every_row_of_a_sample_has_its_target(rule):
    x, y = data(4)
    model, twin = Tokens(), Tokens()
    read, maps = begun(Tokens(), x, rule)
    attachment = attach(model, rule)
    for index in (None, torch.tensor([0, 0, -1, 5] * B), torch.arange(4 * B) % B):
        sample = torch.arange(B).repeat_interleave(4) if index is None else index
        target = torch.where(sample >= 0, y[sample.clamp_min(0)], -1)
        model.zero_grad(), twin.zero_grad()
        attachment.target = y
        with unmoved(attachment, index):
            model(x).sum().backward()
        h = torch.tanh(twin.low(x)).flatten(0, 1)
        local_loss(h, target, read[0], maps[0] if maps else None, rule.similarity).backward()
        for own, expected in zip(model.low.parameters(), twin.low.parameters(), strict=True):
            close(own.grad, expected.grad)


def unmoved(attachment: Attachment, index: Tensor | None) -> ExitStack:
    """A context in which rows belong to the samples of an index, and nothing is learned."""
    stack = ExitStack()
    stack.enter_context(attachment.link.unlearning())
    if index is not None:
        stack.enter_context(attachment.samples(index))
    return stack


def test_a_row_that_stands_for_a_group_of_samples_has_their_shares():
    x, y = data(4)
    y = torch.where(torch.arange(B) == 2, -1, y)
    model, twin = Tokens(), Tokens()
    read, _ = begun(Tokens(), x, PRED)
    rows, group = torch.arange(4 * B) % 3, torch.arange(B) % 3
    attachment = attach(model, PRED)
    attachment.target = y
    with attachment.samples((rows, group)):
        model(x).sum().backward()
    of_group = torch.stack([one_hot(y[(group == g) & (y >= 0)], C).double().mean(dim=0) for g in range(3)])
    local_loss(torch.tanh(twin.low(x)).flatten(0, 1), of_group[rows], read[0], None, 0.0).backward()
    close(model.low.weight.grad, twin.low.weight.grad)


@pytest.mark.parametrize("rule", [PRED, SIM], ids=["pred", "predsim"])
def test_a_batch_without_classes_moves_nothing(rule):
    x, y = data()
    model = Tanh()
    attachment = attach(model, rule)
    attachment.target = torch.full_like(y, -1)
    model(x).sum().backward()
    before = attachment.effective_feedback()
    assert not model.low.weight.grad.any()
    attachment.target = torch.full_like(y, -1)
    model(x).sum().backward()
    assert torch.equal(attachment.effective_feedback(), before)


def test_a_row_without_direction_is_left_out_of_the_similarity():
    x, y = data()
    rule = LES(similarity=0.99)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, C)).double()
    with torch.no_grad():
        model[0].bias.fill_(-1.0)
    x[3] = 0.0  # nothing passes the ReLU
    attachment = attach(model, rule, points=["1"])
    attachment.target = y
    model(x).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert model[0].weight.grad.norm() < 10


def test_parts_of_a_batch_move_the_feedback_as_the_whole_with_as_many_parts_told():
    x, y = data()
    whole, parts = Tanh(), Tanh()
    one, two = attach(whole, LES(lr=0.03)), attach(parts, LES(lr=0.03, every=3))
    for _ in range(2):
        one.target = y
        whole(x).sum().backward()
        for part in (slice(0, 2), slice(2, 3), slice(3, B)):  # unequal: every row counts the same
            two.target = y[part]
            parts(x[part]).sum().backward()
        torch.testing.assert_close(one.effective_feedback(), two.effective_feedback())


def test_a_loss_scale_reaches_the_hidden_layers_and_not_the_feedback():
    x, y = data()
    plain, scaled = Tanh(), Tanh()
    one, two = attach(plain, SIM), attach(scaled, SIM)
    two.loss_scale = 1024.0
    for _ in range(2):
        for model, attachment, factor in ((plain, one, 1.0), (scaled, two, 1024.0)):
            model.zero_grad()
            attachment.target = y
            (factor * cross_entropy(model(x), y)).backward()
        for own, expected in zip(scaled.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(own.grad, 1024.0 * expected.grad)
    assert torch.equal(one.effective_feedback(), two.effective_feedback())


def test_a_sum_of_errors_is_as_many_times_as_large_as_there_are_samples():
    x, y = data()
    mean, total = Tanh(), Tanh()
    for model, feedback in ((mean, Feedback()), (total, Feedback(error_sum=True))):
        attach(model, "les", feedback=feedback).target = y
        model(x).sum().backward()
    torch.testing.assert_close(total.low.weight.grad, B * mean.low.weight.grad)


@dataclass(frozen=True, repr=False)
class Follow(Local):
    """A rule of a user's: every row is drawn to the direction of its class."""

    size: float = 0.5

    def at_point(self, here: Here) -> tuple[Tensor, dict[str, Tensor]]:
        return self.size * (here.value - here.target @ here.feedback) / len(here.value), {}


def test_a_local_rule_of_ones_own_says_what_a_point_receives():
    x, y = data()
    model = Tanh()
    attachment = attach(model, Follow())
    attachment.target = y
    model(x).sum().backward()
    h = torch.tanh(model.low(x)).detach()
    drawn = attachment.effective_feedback()[:, :5]
    close(model.low.bias.grad, (0.5 * (h - drawn[y]) / B * (1 - h**2)).sum(dim=0))


def test_the_map_is_drawn_by_the_seed_of_the_feedback():
    x, _ = data()
    maps = [begun(Tanh(), x, SIM)[1] for _ in range(2)]
    model = Tanh()
    other = attach(model, SIM, seed=7)
    model(x)
    assert [found.shape for found in maps[0]] == [(5, 4), (4, 4)]
    assert all(torch.equal(one, again) for one, again in zip(*maps, strict=True))
    assert not torch.equal(other.head.learner.memory["points.0"]["map"], maps[0][0])
    assert not torch.equal(maps[0][0][:4], maps[0][1])
