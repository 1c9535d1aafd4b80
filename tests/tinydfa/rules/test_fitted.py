"""Feedback fitted to exact passes: against backpropagation, and against numpy's least squares."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.processes import in_two_processes
from tests.tinydfa.learning import LinearTop, Tokens, backprop, data, gradients, loss_of, same
from tests.tinydfa.nets import ConvNet, Mlp, batch, error_of, gradients_of
from tinydfa import attach
from tinydfa.errors import OptionError, ShapeError
from tinydfa.rules import Fitted

WIDTHS = [5, 4, 7]  # of the points of an `Mlp`


def deltas(net: Mlp, x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Error ``[B, c]`` and the gradient at every point ``[B, d]``, by autograd on layers alone."""
    values = []
    for layer in net.hidden:
        values.append(torch.tanh(layer(values[-1] if values else x)))
    output = net.top(values[-1])
    found = torch.autograd.grad(cross_entropy(output, y), values)
    return error_of(output, y).detach(), list(found)


def least_squares(looks: list[tuple[Tensor, Tensor]], memory: float, ridge: float) -> Tensor:
    """The ridge solution of errors and gradients, the last look first, as an ordinary least squares problem."""
    weights = [memory ** (age / 2) for age in range(len(looks))]
    errors = np.concatenate([w * e.numpy() for w, (e, _) in zip(weights, looks, strict=True)])
    signals = np.concatenate([w * d.numpy() for w, (_, d) in zip(weights, looks, strict=True)])
    c = errors.shape[1]
    rows = np.concatenate([errors, math.sqrt(ridge * (errors**2).sum() / c) * np.eye(c)])
    aims = np.concatenate([signals, np.zeros((c, signals.shape[1]))])
    return torch.from_numpy(np.linalg.lstsq(rows, aims, rcond=None)[0])


@pytest.mark.parametrize("kind", [LinearTop, Tokens])
def test_below_a_linear_top_fitted_feedback_is_backpropagation(kind):
    model, (x, y) = kind(), data() if kind is LinearTop else data(12, 4)
    expected = backprop(kind(), x, y)
    attach(model, Fitted(ridge=1e-13), batch_dims=(0,))
    for _ in range(3):
        same(gradients(model, x, y), expected, rtol=1e-9)


@pytest.mark.parametrize("rule", [Fitted(exact_every=2), Fitted(exact_every=1, memory=0.0, ridge=0.3, rows=0)])
def test_the_feedback_is_the_ridge_solution_of_the_looks_so_far(rule):
    net = Mlp().double()
    attachment = attach(net, rule)
    looks: list[list[tuple[Tensor, Tensor]]] = [[], [], []]
    for number in range(5):
        x, y = batch(seed=number)
        x = x.double()
        if number % rule.exact_every == 0:
            error, found = deltas(net, x, y)
            for look, delta in zip(looks, found, strict=True):
                look.insert(0, (error, delta))
        net.zero_grad()
        cross_entropy(net(x), y).backward()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.sub_(0.5 * parameter.grad)
        for own, look in zip(attachment.effective_feedback().split(WIDTHS, dim=1), looks, strict=True):
            torch.testing.assert_close(own, least_squares(look, rule.memory, rule.ridge), rtol=1e-7, atol=1e-9)


def test_every_pass_between_two_looks_is_the_error_times_the_feedback():
    net, (x, y) = ConvNet().double(), batch(6, 2, 8, 8)
    x = x.double()
    attachment = attach(net, "fitted")
    cross_entropy(net(x), y).backward()
    feedback = attachment.effective_feedback()[:, -5:]
    net.zero_grad()
    cross_entropy(net(x), y).backward()
    with attachment.backprop():
        h = torch.tanh(net.fc(torch.tanh(net.conv2(torch.tanh(net.conv1(x)))).flatten(1)))
        signal = error_of(net.top(h), y) @ feedback * (1 - h**2)
    torch.testing.assert_close(net.fc.bias.grad, signal.sum(0).detach())


def test_a_factor_on_the_loss_cancels():
    found = []
    for factor in (1.0, 4096.0):
        net, (x, y) = Mlp().double(), batch()
        attachment = attach(net, Fitted(exact_every=2))
        for _ in range(4):
            net.zero_grad()
            (factor * cross_entropy(net(x.double()), y)).backward()
        found.append((attachment.effective_feedback(), gradients_of(net)))
    (one, plain), (two, scaled) = found
    torch.testing.assert_close(one, two)
    for name, gradient in plain.items():
        torch.testing.assert_close(scaled[name], 4096.0 * gradient)


def fits(rows: int) -> list[Tensor]:
    """The feedback after each of two looks, at weights that do not move."""
    net, (x, y) = Mlp().double(), batch(12)
    attachment = attach(net, Fitted(exact_every=1, memory=0.0, ridge=1e-9, rows=rows))
    found = []
    for _ in range(2):
        cross_entropy(net(x.double()), y).backward()
        found.append(attachment.effective_feedback())
    return found


def test_at_most_so_many_rows_are_looked_at_the_same_of_every_point_and_others_at_each_look():
    (x, y), net = batch(12), Mlp().double()
    errors, found = deltas(net, x.double(), y)
    looks = []
    for look in fits(rows=2):
        met = [
            ((errors @ own - delta).norm(dim=1) < 1e-4 * delta.norm(dim=1)).nonzero().flatten().tolist()
            for own, delta in zip(look.split(WIDTHS, dim=1), found, strict=True)
        ]
        assert (
            met[0] == met[1]
        )  # two errors of three numbers that add up to 0 are met exactly; above met[2] all is linear
        looks.append(met[0])
    assert [len(rows) for rows in looks] == [2, 2]
    assert looks[0] != looks[1]


def test_no_more_rows_than_there_are_and_the_generators_are_left_alone():
    every = fits(rows=0)
    torch.manual_seed(3)
    Mlp()
    expected = torch.rand(3)
    torch.manual_seed(3)
    few = fits(rows=2)  # makes an `Mlp`, and draws rows
    assert torch.equal(torch.rand(3), expected)
    assert not torch.allclose(few[0], every[0], rtol=1e-2)
    torch.testing.assert_close(fits(rows=12), every)


@pytest.mark.parametrize("frozen", ["low", "middle"])
def test_a_point_below_which_nothing_trains_has_nothing_to_fit(frozen):
    model, (x, y) = LinearTop(), data()
    for parameter in model.get_submodule(frozen).parameters():
        parameter.requires_grad_(False)
    attachment = attach(model, Fitted(ridge=1e-13))
    found = []
    for _ in range(2):
        model.zero_grad()
        loss_of(model(x), y).backward()
        found.append([p.grad.clone() for p in model.parameters() if p.requires_grad])
    same(found[1], found[0], rtol=1e-9)
    fitted = attachment.effective_feedback().split([5, 4], dim=1)
    learned = [torch.allclose(own, ideal) for own, ideal in zip(fitted, model.jacobians(), strict=True)]
    assert learned == [frozen != "low", True]  # the second point's value depends on `low` still


def test_an_error_of_zero_leaves_the_feedback_alone():
    model, (x, _) = LinearTop(), data()
    attachment = attach(model, "fitted")
    loss_of(model(x), model(x).detach()).backward()
    assert attachment.effective_feedback().abs().sum() > 0
    assert attachment.effective_feedback().isfinite().all()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"exact_every": 0}, "exact_every is a whole number, at least 1; got 0"),
        ({"exact_every": 2.5}, "exact_every is a whole number, at least 1; got 2.5"),
        ({"memory": 1.0}, "memory is a share, at least 0 and below 1; got 1.0"),
        ({"ridge": 0.0}, "ridge is a number above 0; got 0.0"),
        ({"ridge": math.nan}, "ridge is a number above 0; got nan"),
        ({"rows": -1}, "rows is a whole number, at least 0; got -1"),
        ({"steady": 1}, "steady is True or False; got 1"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(options, says):
    with pytest.raises(OptionError, match=f"Fitted: {says}"):
        Fitted(**options)


def test_an_error_as_wide_as_a_vocabulary_is_refused_with_a_way_out():
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 4097))
    attach(net, "fitted", points=["1"])
    with pytest.raises(ShapeError, match=r"4097 numbers, a vocabulary perhaps; 4096 is the most.*output=.*fdfa"):
        net(torch.ones(1, 2))


def fit_worker(rank: int, folder: Path) -> None:
    """Half of the batch in each of two processes."""
    net, (x, y) = Mlp().double(), batch()
    attachment = attach(net, Fitted(exact_every=2))
    parallel = nn.parallel.DistributedDataParallel(net)
    part = slice(4 * rank, 4 * rank + 4)
    for _ in range(2):
        net.zero_grad()
        cross_entropy(parallel(x[part].double()), y[part]).backward()
    torch.save((attachment.effective_feedback(), gradients_of(net)), folder / f"{rank}.pt")


def test_processes_fit_one_feedback_that_of_the_whole_batch(tmp_path):
    in_two_processes(fit_worker, tmp_path)
    (first, found), (second, _) = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert torch.equal(first, second)
    net, (x, y) = Mlp().double(), batch()
    attachment = attach(net, Fitted(exact_every=2))
    for _ in range(2):
        net.zero_grad()
        cross_entropy(net(x.double()), y).backward()
    torch.testing.assert_close(first, attachment.effective_feedback())
    for name, gradient in gradients_of(net).items():
        torch.testing.assert_close(found[name], gradient)


@pytest.mark.parametrize("first", [False, True])
def test_a_model_whose_last_point_is_the_output_is_scored_between_two_passes_and_learns_on(first):
    runs = []
    for scored in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 7), nn.Tanh(), nn.Linear(7, 3))
        attach(net, Fitted(exact_every=2), points=["1", "3"], output="3")
        x, y = torch.randn(5, 6), torch.randint(0, 3, (5,))
        for number in range(4):
            if scored and (number > 0 or first):
                with torch.no_grad():
                    net(x)
            cross_entropy(net(x), y).backward()
        runs.append([parameter.grad for parameter in net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_a_steady_fit_counts_every_look_the_same_and_keeps_the_length_of_the_first():
    net, rule = Mlp().double(), Fitted(exact_every=1, memory=0.5, ridge=1e-3, steady=True)
    attachment = attach(net, rule)
    looks: list[list[tuple[Tensor, Tensor]]] = [[], [], []]
    first: list[float] = []
    for number, size in enumerate((1.0, 1e-4, 30.0)):  # of the loss, and so of error and signals
        x, y = batch(seed=number)
        error, found = deltas(net, x.double(), y)
        for look, delta in zip(looks, found, strict=True):
            look.insert(0, (error / error.norm(), delta / delta.norm()))
        (size * cross_entropy(net(x.double()), y)).backward()
        first = first or [
            float(least_squares(look, 0.5, 1e-3).norm() * delta.norm() / error.norm())
            for look, delta in zip(looks, found, strict=True)
        ]
        for own, look, length in zip(attachment.effective_feedback().split(WIDTHS, 1), looks, first, strict=True):
            direction = least_squares(look, 0.5, 1e-3)
            torch.testing.assert_close(own, direction * length / direction.norm(), rtol=1e-7, atol=1e-9)


def test_a_steady_fit_leaves_the_feedback_alone_where_nothing_arrives():
    model, (x, y) = LinearTop(), data()
    attachment = attach(model, Fitted(exact_every=1, steady=True))
    drawn = None
    for target in (model(x).detach(), y):
        loss_of(model(x), target).backward()
        drawn = attachment.effective_feedback() if drawn is None else drawn
    assert attachment.effective_feedback().isfinite().all()
    assert not torch.equal(attachment.effective_feedback(), drawn)
