"""Exact passes that come when alignment has fallen: the whole sequence of them, worked out by hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.processes import in_two_processes
from tests.tinydfa.learning import LinearTop, backprop, data, gradients, loss_of, same
from tinydfa import attach
from tinydfa.errors import OptionError
from tinydfa.rules import Fitted, Seen


class Noting(Fitted):
    """Notes how many points each exact pass has shown."""

    shown: list[str]

    def moments(self, seen: Seen) -> dict[str, Tensor]:
        self.shown.append(seen.name)
        return super().moments(seen)


def noting(**options) -> Noting:
    rule = Noting(**{"memory": 0.0, "ridge": 1e-13} | options)
    object.__setattr__(rule, "shown", [])
    return rule


def train(model: nn.Module, rule: Noting, passes: range, flips=(), part="top") -> list[int]:
    """Passes whose weights stay, but for a matrix that changes its sign before some; returns which were exact."""
    (x, y), found = data(), []
    for number in passes:
        if number in flips:
            with torch.no_grad():
                model.get_submodule(part).weight.neg_()
        rule.shown.clear()
        gradients(model, x, y)
        if rule.shown:
            found.append(number)
    return found


def test_the_time_doubles_while_the_old_fit_holds_and_halves_when_it_does_not():
    model, rule = LinearTop(), noting(exact_every=2, adapt=0.5, exact_between=(1, 8))
    attach(
        model, rule
    )  # what each point sends has the cosine 1 with its gradient, or -1 once a matrix above is negated
    exact = train(model, rule, range(40), flips={20, 24, 27, 29})
    assert exact == [0, 2, 6, 14, 22, 26, 28, 29, 30, 32, 36]


@pytest.mark.parametrize("part", ["top", "middle"])
def test_the_cosine_is_the_mean_over_points(part):
    model, rule = LinearTop(), noting(exact_every=2, adapt=0.1, exact_between=(1, 8))
    attach(model, rule)  # `middle` stands above the first point alone: cosines of -1 and 1
    assert train(model, rule, range(8), flips={3}, part=part) == [0, 2, 6]
    assert train(model, rule, range(8, 15)) == [8, 12]


@pytest.mark.parametrize(("adapt", "exact"), [(0.59, [0, 4, 12]), (0.61, [0, 4, 6])])
def test_the_next_pass_comes_sooner_below_the_cosine_aimed_at_and_later_above_it(adapt, exact):
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3)).double()
    rule = noting(exact_every=4, adapt=adapt, exact_between=(1, 100))
    attach(model, rule, points=["0"])
    turn = torch.tensor([[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, -1], [0, 0, 1, 0]], dtype=torch.float64)
    found = train(model, rule, range(3))  # the first fit has nothing to compare with
    with torch.no_grad():  # every row of the matrix turns by the angle whose cosine is 0.6
        model[1].weight.copy_(model[1].weight @ (0.6 * torch.eye(4) + 0.8 * turn).T)
    assert found + train(model, rule, range(3, 13))[: len(exact) - 1] == exact


def test_exact_passes_train_by_their_gradient_and_the_others_by_the_last_fit():
    model, (x, y) = LinearTop(), data()
    attach(model, noting(exact_every=2, adapt=0.5, exact_between=(1, 8)))
    expected = backprop(LinearTop(), x, y)
    for _ in range(4):
        same(gradients(model, x, y), expected, rtol=1e-9)
    with torch.no_grad():
        model.top.weight.neg_()
    turned = LinearTop()
    turned.load_state_dict(model.state_dict())
    by_hand, found = backprop(turned, x, y), gradients(model, x, y)  # pass 4 of the old fit; 6 is the next exact one
    assert torch.allclose(found[2], -by_hand[2])
    same(gradients(model, x, y)[:1], [-by_hand[0]])
    same(gradients(model, x, y), by_hand, rtol=1e-9)


def test_a_saved_state_knows_when_the_next_exact_pass_is_due():
    for stop in (3, 15, 23, 27):
        model, rule = LinearTop(), noting(exact_every=2, adapt=0.5, exact_between=(1, 8))
        attachment, flips = attach(model, rule), {20, 24, 27, 29}
        before = train(model, rule, range(stop), flips)
        fresh, same_rule = LinearTop(), noting(exact_every=2, adapt=0.5, exact_between=(1, 8))
        other = attach(fresh, same_rule)
        fresh.load_state_dict(model.state_dict())
        other.load_state_dict(attachment.state_dict())
        after = train(fresh, same_rule, range(stop, 40), flips)
        assert before + after == [0, 2, 6, 14, 22, 26, 28, 29, 30, 32, 36]


def test_a_pass_without_a_backward_pass_or_with_an_overflow_leaves_the_time_as_it_is():
    model, rule, (x, y) = LinearTop(), noting(exact_every=2, adapt=0.5, exact_between=(1, 8)), data()
    attach(model, rule)
    assert train(model, rule, range(2)) == [0]
    model(x)  # pass 2 is exact, and nothing comes back
    assert train(model, rule, range(3, 4)) == []
    (loss_of(model(x), y) * 1e200).backward()  # pass 4, two after 2: the squares of this error are infinite
    model.zero_grad()
    assert train(model, rule, range(5, 14)) == [6, 10]


class Signed(nn.Module):
    """What the output answers to the point depends on the sign of the last number of a sample."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.low, self.top = nn.Linear(6, 4), nn.Linear(4, 3)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.top(self.low(x)) * x[:, -1:].sign()


def adapting_worker(rank: int, folder: Path) -> None:
    """In pass 2 the old fit holds in one process, and in the other, whose error is half as large, it points away."""
    torch.manual_seed(0)
    x, error = torch.rand(8, 6, dtype=torch.float64), torch.randn(8, 3, dtype=torch.float64)
    model, rule = Signed(), noting(exact_every=2, adapt=0.5, exact_between=(1, 8))
    attach(model, rule, points=["low"])
    parallel, exact = nn.parallel.DistributedDataParallel(model), []
    for number in range(7):
        rule.shown.clear()
        turned = x * (-1.0 if number == 2 and rank == 1 else 1.0)
        (parallel(turned) * error / error.norm() * (0.5 if rank else 1.0)).sum().backward()
        exact += [number] if rule.shown else []
    torch.save(exact, folder / f"{rank}.pt")


def test_processes_agree_on_the_next_exact_pass_by_the_cosine_over_all_their_rows(tmp_path):
    in_two_processes(adapting_worker, tmp_path)
    assert [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)] == [[0, 2, 6]] * 2  # (1 - 1/4) / (1 + 1/4) > 1/2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"adapt": 1.0}, "adapt is a share, at least 0 and below 1; got 1.0"),
        ({"adapt": True}, "adapt is a share, at least 0 and below 1; got True"),
        ({"adapt": 0.5, "exact_between": 10}, "exact_between is two whole numbers, as in (10, 1000); got 10"),
        ({"adapt": 0.5, "exact_between": (0, 200)}, "exact_between is a whole number, at least 1; got 0"),
        ({"adapt": 0.5, "exact_every": 5}, "exact_every=5 is where the time between two exact passes begins"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(options, says):
    with pytest.raises(OptionError, match=re.escape(f"Fitted: {says}")):
        Fitted(**options)


def test_options_that_are_off_are_not_spelled_so_that_old_checkpoints_of_pipelines_know_the_rule():
    assert repr(Fitted()) == "Fitted(exact_every=100, memory=0.9, ridge=0.001, rows=4096)"
    assert repr(Fitted(adapt=0.5)).endswith("rows=4096, adapt=0.5, exact_between=(10, 1000))")
    assert repr(Fitted(steady=True)).endswith("rows=4096, steady=True)")
