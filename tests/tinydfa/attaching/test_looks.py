"""Passes that show a rule more than they need to train: against gradients and Jacobians written by hand."""

from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.processes import in_two_processes
from tests.tinydfa.learning import B, LinearTop, Tokens, backprop, data, gradients, loss_of, same
from tinydfa import Feedback, Learning, attach, measure_alignment
from tinydfa.errors import DFAError
from tinydfa.rules import Probe, Probed, Seen


@dataclass(frozen=True, repr=False)
class Fit(Learning):
    """F is the map from errors to gradients that fits an exact pass best."""

    every: int = 0
    exact_every: int = 100

    def moments(self, seen: Seen) -> dict[str, Tensor]:
        assert seen.gradient is not None
        return {"errors": seen.error.T @ seen.error, "both": seen.error.T @ seen.gradient}

    def update(self, feedback: Tensor, moments: dict[str, Tensor], memory: dict[str, Tensor]) -> None:
        memory["errors"], memory["both"] = moments["errors"], moments["both"]
        feedback.copy_(torch.linalg.solve(moments["errors"].double(), moments["both"].double()))


@dataclass(frozen=True, repr=False)
class Answer(Learning):
    """F is the mean answer of the output to noise."""

    every: int = 0
    probe_every: int = 100
    probe: Probe = Probe(1e-3, 3)  # noqa: RUF009

    def probe_moments(self, probed: Probed) -> dict[str, Tensor]:
        rows = torch.tensor(float(len(probed.noise)))
        return {"rows": rows, "answer": probed.change.T @ probed.noise}

    def update(self, feedback: Tensor, moments: dict[str, Tensor], memory: dict[str, Tensor]) -> None:
        feedback.copy_(moments["answer"] / moments["rows"])


def test_an_exact_pass_trains_by_its_exact_gradient():
    model, (x, y) = LinearTop(), data()
    expected = backprop(LinearTop(), x, y)
    attach(model, Fit(exact_every=1))
    for _ in range(2):
        same(gradients(model, x, y), expected, rtol=1e-12)


def test_an_exact_pass_shows_error_and_gradient_of_every_point():
    model, (x, y) = LinearTop(), data()
    attachment = attach(model, Fit())
    gradients(model, x, y)
    error = 2 * (model(x) - y).detach() / B
    memory = attachment.head.learner.memory
    for name, jacobian in zip(("points.0", "points.1"), model.jacobians(), strict=True):
        same([memory[name]["errors"], memory[name]["both"]], [error.T @ error, error.T @ (error @ jacobian)])


def test_feedback_fitted_below_a_linear_top_sends_the_signal_of_backpropagation():
    model, (x, y) = LinearTop(), data()
    attachment = attach(model, Fit())
    expected = backprop(LinearTop(), x, y)
    gradients(model, x, y)
    same([attachment.effective_feedback()], [torch.cat(model.jacobians(), dim=1)])
    same(gradients(model, x, y), expected)


def test_feedback_fitted_for_points_with_several_rows_a_sample_is_that_of_backpropagation():
    model, (x, y) = Tokens(), data(B, 4)
    expected = backprop(Tokens(), x, y)
    attachment = attach(model, Fit(), batch_dims=(0,))
    gradients(model, x, y)
    same([attachment.effective_feedback()], [model.top.weight.detach() / 4**0.5])
    same(gradients(model, x, y), expected)


def test_rows_that_an_index_leaves_out_show_nothing():
    model, (x, y) = Tokens(), data(B, 4)
    index = torch.arange(B).repeat_interleave(4)
    index[::4] = -1  # three rows a sample are left
    for rule in (Fit(), Answer(probe=Probe(1e-3, 800))):
        attachment = attach(model, rule, batch_dims=(0,))
        with attachment.samples(index):
            gradients(model, x, y)
        ideal = model.top.weight.detach() * 3**0.5 / 4
        off = (attachment.effective_feedback() - ideal).norm() / ideal.norm()
        assert off < (0.05 if rule.probe_every else 1e-4)
        attachment.detach()


@pytest.mark.parametrize("kind", ["two points", "rows"])
def test_the_mean_answer_to_noise_is_the_jacobian_of_a_linear_top(kind):
    model, (x, _) = (LinearTop(), data()) if kind == "two points" else (Tokens(), data(B, 4))
    ideal = torch.cat(model.jacobians(), dim=1) if isinstance(model, LinearTop) else model.top.weight.detach() / 2
    attachment = attach(model, Answer(probe=Probe(1e-3, 800)), batch_dims=(0,))
    model(x)  # the feedback changes before the backward pass
    found = attachment.effective_feedback().double()
    assert (found - ideal).norm() < 0.05 * ideal.norm()


def test_a_probe_is_no_larger_than_it_says_and_noise_differs_between_passes_and_times():
    model, (x, _) = LinearTop(), data()
    seen: list[Tensor] = []

    class Watching(Answer):
        def probe_moments(self, probed: Probed) -> dict[str, Tensor]:
            seen.append(probed.noise)
            same([probed.change], [probed.change])
            return super().probe_moments(probed)

    attach(model, Watching(probe_every=1, probe=Probe(0.5, 2)))
    model(x), model(x)
    assert len(seen) == 2 * 2 * 2  # points, times, passes
    assert 0.8 < torch.cat([noise.flatten() for noise in seen]).std() < 1.2
    assert len({noise.flatten()[0].item() for noise in seen}) == len(seen)


@pytest.mark.parametrize("rule", [Fit(exact_every=3), Answer(probe_every=3)])
def test_the_first_and_every_kth_training_pass_look_and_no_other(rule):
    model, (x, y) = LinearTop(), data()
    attachment = attach(model, rule)
    changed, before = [], None
    for number in range(7):
        with torch.no_grad():
            model(x)
        model.eval()
        gradients(model, x, y)
        model.train()
        with attachment.backprop():
            gradients(model, x, y)
        if number:
            measure_alignment(model, lambda model: loss_of(model(x), y))
            assert torch.equal(attachment.effective_feedback(), before)
        gradients(model, x + number, y)
        after = attachment.effective_feedback()
        changed.append(before is None or not torch.equal(before, after))
        before = after
    assert changed == [True, False, False, True, False, False, True]


def test_parts_of_a_batch_add_up_the_gradient_that_each_trains_by():
    model, (x, y) = LinearTop(), data()
    attachment = attach(model, Fit(exact_every=2))
    exact = backprop(LinearTop(), x[:8], y[:8])
    gradients(model, x[:8], y[:8])
    feedback = attachment.effective_feedback()
    other = LinearTop()
    other_attachment = attach(other, "dfa", feedback=Feedback(shared=False, scaling="none"))
    other(x)
    other_attachment.head.feedback_matrix.copy_(feedback)
    direct = gradients(other, x[8:], y[8:])
    loss_of(model(x[8:]), y[8:]).backward()
    same([parameter.grad for parameter in model.parameters()], [a + b for a, b in zip(exact, direct, strict=True)])


def test_a_loss_scale_is_undone_before_the_rule_sees_error_and_gradient():
    plain, scaled, (x, y) = LinearTop(), LinearTop(), data()
    one, two = attach(plain, Fit()), attach(scaled, Fit())
    two.loss_scale = 1024.0
    gradients(plain, x, y)
    gradients(scaled, x, y, factor=1024.0)
    for name, moments in one.head.learner.memory.items():
        same(list(two.head.learner.memory[name].values()), list(moments.values()))


@dataclass(frozen=True, repr=False)
class Both(Answer):
    """Looks in both ways, and blends."""

    exact_every: int = 2
    probe_every: int = 3

    def moments(self, seen: Seen) -> dict[str, Tensor]:
        assert seen.gradient is not None
        return {"exact": seen.error.T @ seen.gradient}

    def update(self, feedback: Tensor, moments: dict[str, Tensor], memory: dict[str, Tensor]) -> None:
        feedback.mul_(0.9)
        for name, moment in moments.items():
            if name != "rows":
                feedback.add_(moment, alpha=0.1)


def test_a_saved_state_goes_on_looking_as_if_nothing_had_happened():
    def train(model: nn.Module, steps: int) -> list[float]:
        found = []
        for _ in range(steps):
            grads = gradients(model, x, y)
            with torch.no_grad():
                for parameter, grad in zip(model.parameters(), grads, strict=True):
                    parameter.sub_(0.05 * grad)
            found.append(loss_of(model(x), y).item())
        return found

    model, (x, y) = LinearTop(), data()
    attachment = attach(model, Both())
    train(model, 2)
    weights, state = {k: v.clone() for k, v in model.state_dict().items()}, attachment.state_dict()
    expected = train(model, 5)
    fresh = LinearTop()
    other = attach(fresh, Both())
    fresh.load_state_dict(weights)
    other.load_state_dict(state)
    assert train(fresh, 5) == expected


@pytest.mark.parametrize("dropout", [False, True])
def test_a_probe_leaves_generators_statistics_and_modes_as_they_were(dropout):
    plain, probed, (x, y) = LinearTop(0.5), LinearTop(0.5), data()
    attach(plain, "dfa")
    attach(probed, Answer(probe_every=1, probe=Probe(1e-3, 2, dropout=dropout)))
    results = []
    for model in (plain, probed):
        torch.manual_seed(5)
        outputs = [model(x).detach() for _ in range(3)]
        results.append([*outputs, model.norm.running_mean, model.norm.running_var, torch.rand(3)])
        assert all(module.training for module in model.modules())
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)
    gradients(probed, x, y)  # what the graph had saved is untouched


def test_a_frozen_batch_norm_is_still_fit_for_the_backward_pass():
    model, (x, y) = LinearTop(0.5), data()
    attach(model, Answer(probe_every=1))
    model.norm.eval()
    gradients(model, x, y)
    assert not model.norm.training


@pytest.mark.parametrize("whole", [False, True])
def test_an_exact_pass_through_checkpoints_is_exact(whole):
    class Saved(LinearTop):
        def forward(self, x: Tensor) -> Tensor:
            return LinearTop.forward(self, x) if whole else checkpoint(super().forward, x, use_reentrant=False)

    model, (x, y) = Saved(), data()
    attach(model, Fit(exact_every=1))
    expected = backprop(LinearTop(), x, y)
    model.zero_grad()
    output = checkpoint(model, x, use_reentrant=False) if whole else model(x)
    loss_of(output, y).backward()
    same([parameter.grad for parameter in model.parameters()], expected, rtol=1e-12)


class Token:
    """Kept by a graph."""


class Keeps(torch.autograd.Function):
    """The identity; its graph keeps a token."""

    @staticmethod
    def forward(ctx, x: Tensor, token: Token) -> Tensor:
        ctx.token = token
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class Keeping(LinearTop):
    def forward(self, x: Tensor) -> Tensor:
        token = Token()
        self.gone = weakref.ref(token)
        return super().forward(Keeps.apply(x * self.low.weight.sum(), token))


@pytest.mark.parametrize("rule", [Fit(exact_every=1), Answer(probe_every=1)])
def test_a_look_keeps_no_graph_that_is_never_used(rule):
    model, (x, _) = Keeping(), data()
    attach(model, rule)
    gc.collect()
    gc.disable()
    try:
        output = model(x)
        kept = model.gone
        assert rule.probe_every or kept() is not None
        del output
        assert kept() is None
    finally:
        gc.enable()


def test_a_backward_pass_that_raises_shows_nothing():
    model, (x, y) = LinearTop(), data()
    attachment = attach(model, Fit(exact_every=1))
    handle = model.low.weight.register_hook(stop)
    loss = loss_of(model(x), y)
    before = attachment.effective_feedback()
    with pytest.raises(RuntimeError, match="stop"):
        loss.backward()
    handle.remove()
    assert torch.equal(attachment.effective_feedback(), before)
    same(gradients(model, x, y), backprop(LinearTop(), x, y), rtol=1e-12)
    assert not torch.equal(attachment.effective_feedback(), before)


def stop(gradient: Tensor) -> None:
    raise RuntimeError("stop")


def test_a_compiled_model_is_refused_in_words():
    model, (x, _) = LinearTop(), data()
    attach(model, Fit())
    with pytest.raises(Exception, match="looks at some passes") as caught:
        torch.compile(model, fullgraph=True)(x)
    assert isinstance(caught.value, DFAError) or "Do not compile the model" in str(caught.value)


def look_worker(rank: int, folder: Path) -> None:
    """Half of the batch in each of two processes."""
    model, (x, y) = LinearTop(), data()
    fitted = attach(model, Both(exact_every=1, probe_every=1))
    part = slice(6 * rank, 6 * rank + 6)
    parallel = nn.parallel.DistributedDataParallel(model)
    for _ in range(2):
        parallel.zero_grad()
        loss_of(parallel(x[part]), y[part]).backward()
    torch.save(
        (fitted.effective_feedback(), [parameter.grad for parameter in model.parameters()]), folder / f"{rank}.pt"
    )


def test_two_processes_keep_one_feedback_and_average_exact_gradients(tmp_path):
    in_two_processes(look_worker, tmp_path)
    (one, grads), (two, others) = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert torch.equal(one, two)
    same(grads, others, rtol=1e-12)
    same(grads, backprop(LinearTop(), *data()), rtol=1e-12)
