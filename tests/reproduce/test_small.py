"""Small runs bear the name of what they are on, and rows that would mislead are left out; expected by hand."""

from typing import Any

from harness.tables import Cell, RunContext, Table
from reproduce import small


def no_run(cell: Cell, seed: int, context: RunContext) -> dict[str, Any]:
    raise AssertionError("nothing should run here")


def cell(row: str, column: str, method: str, metric: str = "score", key: str = "") -> Cell:
    return Cell(row=row, column=column, method=method, key=key or row, dataset=column, metric=metric)


def table(*cells: Cell, **more: Any) -> Table:
    about = {"name": "t", "title": "MNIST: score", "task": "vision", "unit": "%", "source": "the paper"}
    return Table(**about | more, cells=cells, run=no_run)


def line(of: Cell, value: float, scale: str = "paper") -> dict[str, Any]:
    names = {"row": of.row, "preset": of.key, "dataset": of.dataset, "method": of.method, "seed": 0}
    return names | {"scale": scale, "result": {"metrics": {of.metric: value}, "seconds": 1.0}}


def test_small_runs_are_named_by_what_they_are_on():
    little = small.small(table(cell("FC", "MNIST", "bp"), cell("FC", "CIFAR-10", "bp")))
    assert little.title == "8 x 8 digits: score"
    assert [(c.column, c.dataset) for c in little.cells] == [("8 x 8 digits", "synthetic")]


def test_rows_that_differ_by_their_data_alone_are_one_row():
    scenes = table(
        *(cell(scene, scene, m, key="small") for scene in ("solids", "lego") for m in ("bp", "dfa")), task="nerf"
    )
    assert [(c.row, c.method) for c in small.small(scenes).cells] == [("solids", "bp"), ("solids", "dfa")]


def test_data_that_is_generated_at_any_scale_is_not_called_otherwise():
    assert small.data_of(table(cell("FC", "drtp-regression", "bp"))) == "generated data"


METHODS = ("bp", "dfa", "shallow")
WHOLE = table(*(cell(row, "MNIST", method) for row in ("deep", "wide") for method in METHODS))
LITTLE = small.small(WHOLE)
FULL_RUNS = [line(c, value) for c, value in zip(WHOLE.cells, (90.0, 80.0, 50.0, 95.0, 85.0, 60.0), strict=True)]


def test_a_row_in_which_backpropagation_is_below_shallow_training_only_when_small_is_left_out():
    runs = [line(c, v, "quick") for c, v in zip(LITTLE.cells, (10.0, 96.0, 50.0, 70.0, 65.0, 60.0), strict=True)]
    assert {c.row for c in small.telling(LITTLE, runs, WHOLE, FULL_RUNS).cells} == {"wide"}


def test_rows_in_the_order_of_the_long_runs_stay():
    runs = [line(c, v, "quick") for c, v in zip(LITTLE.cells, (9.0, 8.0, 5.0, 9.0, 8.0, 5.0), strict=True)]
    assert small.telling(LITTLE, runs, WHOLE, FULL_RUNS) == LITTLE


def test_where_rows_are_settings_the_best_of_each_method_is_compared():
    ladder = table(
        cell("bp", "docs", "bp"), cell("a", "docs", "dfa"), cell("b", "docs", "dfa"), cell("s", "docs", "shallow")
    )
    full = [line(c, value) for c, value in zip(ladder.cells, (100.0, 900.0, 150.0, 390.0), strict=True)]  # a perplexity
    little = small.small(ladder)
    worse = [line(c, value, "quick") for c, value in zip(little.cells, (200.0, 500.0, 399.0, 364.0), strict=True)]
    assert small.telling(little, worse, ladder, full).cells == ()
    better = [line(c, value, "quick") for c, value in zip(little.cells, (200.0, 500.0, 360.0, 364.0), strict=True)]
    assert small.telling(little, better, ladder, full) == little


def test_a_table_without_shallow_training_is_shown_as_it_is():
    two = table(cell("GCN", "Cora", "bp"), cell("GCN", "Cora", "dfa"))
    assert small.telling(small.small(two), [], two, []) == small.small(two)
