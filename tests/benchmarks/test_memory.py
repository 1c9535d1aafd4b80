"""What `benchmarks.memory` says of memory, against what is known of a small perceptron."""

from __future__ import annotations

import matplotlib.image
import pytest

from benchmarks.memory import WAYS, Case, Config, activations, cases, depth_in, main, perceptron

SMALL = Case(
    name="small",
    build=perceptron,
    width=16,
    batch=(256,),
    points=("blocks.*",),
    ways=tuple(WAYS),
    timed=4,
    targets={},
)
ONE = 16 * 256 * 4  # bytes of an activation


def test_activations_grow_with_depth_where_graphs_are_kept_and_nowhere_else():
    grown = {way: (activations(SMALL, 24, *WAYS[way]) - activations(SMALL, 8, *WAYS[way])) / ONE for way in WAYS}
    assert grown["bp"] == pytest.approx(16, abs=1)
    assert grown["dfa"] == pytest.approx(16, abs=1)
    assert grown["bp, checkpoint"] > 15
    for way in ("dfa, replay", "dkp, replay", "drtp, forward"):
        assert grown[way] < 0.6


def test_the_depth_that_fits_lies_on_the_line_through_the_deepest_two():
    assert depth_in(100, {2: 1, 4: 12, 8: 20}) == 48


def test_it_prints_every_target_and_draws(tmp_path, capsys):
    main(Config(rounds=1, depths=(2, 4), budgets=(0.0, 1.0), threads=1, quick=True, out=tmp_path / "memory.json"))
    last = capsys.readouterr().out.splitlines()[-1]
    for case in cases(quick=True):
        assert f'"{case.name}"' in last
        assert all(f'"{name}": {{"is"' in last for name in case.targets)
    assert matplotlib.image.imread(tmp_path / "memory.png").shape[2] == 4
