"""Feedback estimated from forward passes alone: against Jacobians by autograd, and against the papers' steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy

from tests.processes import in_two_processes
from tests.tinydfa.learning import backprop, data, gradients, loss_of, same
from tests.tinydfa.nets import Mlp, batch, descend, error_of
from tinydfa import DFALayer, attach
from tinydfa.errors import OptionError
from tinydfa.rules import FDFA, Fitted, ForwardFitted, GrAPE, Probed

WIDTHS = [5, 4, 7]  # of the points of an `Mlp`
C = 3


class Tanh(nn.Module):
    """Two points; above both the output is no linear function."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.middle, self.top = nn.Linear(6, 5), nn.Linear(5, 4), nn.Linear(4, C)
        self.points = nn.ModuleList([DFALayer(), DFALayer()])
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.top(self.points[1](torch.tanh(self.middle(self.points[0](torch.tanh(self.low(x)))))))

    def mean_jacobians(self, x: Tensor) -> list[Tensor]:
        """Of the output by each point, over the batch, by autograd."""
        low = torch.tanh(self.low(x)).detach().requires_grad_()
        outputs = self.top(torch.tanh(self.middle(low))).sum(dim=0)
        rows = [torch.autograd.grad(output, low, retain_graph=True)[0].mean(dim=0) for output in outputs]
        return [torch.stack(rows), self.top.weight.detach()]


class Counting(FDFA):
    """Counts its probes."""

    def probe_moments(self, probed: Probed) -> dict[str, Tensor]:
        LOOKS.append(probed.name)
        return super().probe_moments(probed)


LOOKS: list[str] = []


def test_the_estimate_is_the_mean_jacobian():
    model, (x, _) = Tanh(), data(1200)
    attachment = attach(model, FDFA(warm=0, size=1e-3, times=20))
    model(x)
    found = attachment.effective_feedback().split([5, 4], dim=1)
    for own, ideal in zip(found, model.mean_jacobians(x), strict=True):
        assert (own - ideal).norm() < 0.05 * ideal.norm()


def test_many_looks_with_one_noisy_pass_each_are_as_good_as_one_with_many():
    model, (x, _) = Tanh(), data(120)
    attachment = attach(model, FDFA(probe_every=1, memory=0.99, size=1e-3))
    for _ in range(60):
        model(x)
    ideal = torch.cat(model.mean_jacobians(x), dim=1)
    assert (attachment.effective_feedback() - ideal).norm() < 0.12 * ideal.norm()


def test_looks_are_averaged_plainly_at_first_and_then_with_memory():
    shown: list[Tensor] = []

    class Watched(FDFA):
        def update(self, feedback: Tensor, moments: dict[str, Tensor], memory: dict[str, Tensor]) -> None:
            if feedback.shape[1] == 5:
                shown.append(moments["answer"] / 12)
            super().update(feedback, moments, memory)

    model, (x, _) = Tanh(), data()
    attachment = attach(model, Watched(probe_every=1, memory=0.6))
    expected, kept = torch.zeros(C, 5, dtype=torch.float64), [0.0, 1 / 2, 0.6, 0.6, 0.6]
    for share in kept:  # the third look of a plain mean would keep 2/3
        model(x)
        expected = share * expected + (1 - share) * shown[-1]
        torch.testing.assert_close(attachment.effective_feedback()[:, :5], expected)


def test_it_looks_in_each_of_the_first_passes_and_then_in_every_kth():
    model, (x, _) = Tanh(), data()
    attach(model, Counting(probe_every=4, warm=3))
    passes = []
    for number in range(10):
        LOOKS.clear()
        model(x)
        if LOOKS:
            passes.append(number)
    assert passes == [0, 1, 2, 4, 8]


@pytest.mark.parametrize("rule", [FDFA(), GrAPE()])
def test_a_point_receives_the_error_times_its_feedback(rule):
    net, (x, y) = Mlp().double(), batch()
    x = x.double()
    attachment = attach(net, rule)
    loss = cross_entropy(net(x), y)
    feedback = attachment.effective_feedback().split(WIDTHS, dim=1)
    loss.backward()
    h = x
    with torch.no_grad():
        for layer in net.hidden:
            h = torch.tanh(layer(h))
        signal = error_of(net.top(h), y) @ feedback[2] * (1 - h**2)
    torch.testing.assert_close(net.hidden[2].bias.grad, signal.sum(0))


def test_grape_takes_one_step_of_the_published_loss_and_gives_every_column_length_one():
    shown: list[tuple[Tensor, Tensor]] = []

    class Watched(GrAPE):
        def update(self, feedback: Tensor, moments: dict[str, Tensor], memory: dict[str, Tensor]) -> None:
            shown.append((feedback.clone(), moments["answer"]))
            super().update(feedback, moments, memory)

    model, (x, _) = Tanh(), data()
    attachment = attach(model, Watched(lr=0.3))
    for _ in range(2):
        model(x)
        found = attachment.effective_feedback().split([5, 4], dim=1)
        for own, (drawn, aim) in zip(found, shown[-2:], strict=True):
            before = drawn.clone().requires_grad_()
            width = before.shape[1]
            loss = 1 - cosine_similarity(before, aim, dim=0).mean()
            (gradient,) = torch.autograd.grad(loss, before)
            stepped = (before - 0.3 * width * gradient).detach()
            torch.testing.assert_close(own, stepped / stepped.norm(dim=0))


def test_columns_turn_towards_the_mean_jacobian():
    model, (x, _) = Tanh(), data(600)
    attachment = attach(model, GrAPE(lr=0.1, size=1e-3))
    for _ in range(60):
        model(x)
    found = attachment.effective_feedback()
    assert cosine_similarity(found, torch.cat(model.mean_jacobians(x), dim=1), dim=0).min() > 0.9


@pytest.mark.parametrize("kind", [FDFA, GrAPE])
def test_calibration_trains_exactly_and_leaves_the_feedback_to_the_noise(kind):
    model, (x, y) = Tanh(), data()
    attachment = attach(model, kind(probe_every=100, warm=1, exact_every=2))
    exact = backprop(Tanh(), x, y)
    for number in range(4):
        found = gradients(model, x, y)
        if number == 0:
            before = attachment.effective_feedback()
        if number % 2 == 0:
            same(found, exact, rtol=1e-12)
        else:
            assert not torch.allclose(found[0], exact[0])
    assert torch.equal(attachment.effective_feedback(), before)


def test_the_forward_fit_comes_near_the_fit_to_exact_gradients():
    model, (x, y) = Tanh(), data(1200)
    attachment = attach(model, ForwardFitted(warm=0, times=40, size=1e-4, ridge=1e-3))
    gradients(model, x, y)  # the feedback changes at the end of the backward pass
    output = model(x).detach()
    error = 2 * (output - y) / 1200
    low = torch.tanh(model.low(x)).detach()
    signal = [torch.autograd.functional.vjp(lambda h: model.top(torch.tanh(model.middle(h))), low, error)[1]]
    signal.append(error @ model.top.weight.detach())
    square = error.T @ error + 1e-3 * error.square().sum() / C * torch.eye(C, dtype=torch.float64)
    for own, delta in zip(attachment.effective_feedback().split([5, 4], dim=1), signal, strict=True):
        ideal = torch.linalg.solve(square, error.T @ delta)
        assert (error @ (own - ideal)).norm() < 0.1 * (error @ ideal).norm()


def test_answers_go_with_the_error_of_their_own_pass():
    one, two, (x, y) = Tanh(), Tanh(), data()
    plain, mixed = attach(one, ForwardFitted(warm=0)), attach(two, ForwardFitted(warm=0))
    gradients(one, x, y)
    first = loss_of(two(x), y)
    loss_of(two(x.flip(0)), y.flip(0)).backward()  # not probed, and run before the pass that was
    first.backward()
    torch.testing.assert_close(mixed.effective_feedback(), plain.effective_feedback())


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: FDFA(probe_every=0), "FDFA: probe_every is a whole number, at least 1; got 0"),
        (lambda: FDFA(warm=-1), "FDFA: warm is a whole number, at least 0; got -1"),
        (lambda: FDFA(size=0.0), r"FDFA: size is a number above 0; got 0\.0"),
        (lambda: FDFA(memory=1.5), r"FDFA: memory is a share, at least 0 and below 1; got 1\.5"),
        (lambda: GrAPE(times=True), "GrAPE: times is a whole number, at least 1; got True"),
        (lambda: GrAPE(lr=-1), "GrAPE: lr is a number above 0; got -1"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(make, says):
    with pytest.raises(OptionError, match=says):
        make()


@pytest.mark.parametrize(
    "rule",
    [
        FDFA(probe_every=2, warm=1, exact_every=3),
        GrAPE(probe_every=2),
        ForwardFitted(probe_every=2, warm=1),
        Fitted(exact_every=2, rows=5),
    ],
)
def test_a_saved_state_goes_on_as_if_nothing_had_happened(rule):
    net, fresh = Mlp(), Mlp()
    attachment, other = attach(net, rule), attach(fresh, rule)
    descend(net, range(3))
    fresh.load_state_dict(net.state_dict())
    other.load_state_dict(attachment.state_dict())
    descend(net, range(3, 8))
    descend(fresh, range(3, 8))
    assert torch.equal(attachment.effective_feedback(), other.effective_feedback())
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), fresh.parameters(), strict=True))


def estimate_worker(rank: int, folder: Path) -> None:
    """Half of the batch in each of two processes."""
    model, (x, _) = Tanh(), data(1200)
    attachment = attach(model, FDFA(warm=0, size=1e-3, times=20))
    part = slice(600 * rank, 600 * rank + 600)
    nn.parallel.DistributedDataParallel(model)(x[part])
    torch.save(attachment.effective_feedback(), folder / f"{rank}.pt")


def test_processes_average_their_estimates_to_that_of_the_whole_batch(tmp_path):
    in_two_processes(estimate_worker, tmp_path)
    one, two = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert torch.equal(one, two)
    ideal = torch.cat(Tanh().mean_jacobians(data(1200)[0]), dim=1)
    assert (one - ideal).norm() < 0.05 * ideal.norm()
