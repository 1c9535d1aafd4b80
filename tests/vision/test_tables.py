"""The tables of this folder: every cell names a preset that exists, and a small run answers it."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from harness.tables import RunContext
from harness.tables.aggregate import quick
from harness.tables.results import read
from tinydfa import Method
from vision import cells, tables
from vision.drtp import presets as drtp
from vision.presets import PRESETS
from vision.rates import notes
from vision.tables import TABLES

BY_NAME = {table.name: table for table in TABLES}
RESULTS = Path(tables.__file__).parents[1] / "results"


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_no_two_cells_share_a_place_and_every_method_exists(table):
    places = [(cell.row, cell.column, cell.method) for cell in table.cells]
    assert len(set(places)) == len(places)
    assert all(Method(cell.method) for cell in table.cells)


@pytest.mark.parametrize(
    "name",
    [
        "drtp-mnist",
        "drtp-rates",
        "drtp-cifar",
        "principled-fc",
        "principled-cnn",
        "biotorch",
        "notebook-mnist",
        "vision-rates",
    ],
)
def test_every_cell_carries_the_preset_that_its_key_names(name):
    for cell in BY_NAME[name].cells:
        assert cell.preset == PRESETS[cell.key]
        assert cell.preset.method.value == cell.method


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_length_changes_fields_of_the_preset_that_are_other_than_published(table):
    for cell in table.cells:
        assert cell.preset.method == cell.method
        assert all(getattr(cell.preset, name) != value for name, value in cell.length.items())


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_line_of_the_results_is_a_run_of_a_cell(table):
    cells = {(cell.key, cell.dataset, cell.method) for cell in table.cells}
    assert {(line["preset"], line["dataset"], line["method"]) for line in read(table.path(RESULTS))} <= cells


def test_published_numbers_stand_where_the_slides_have_them():
    published = {(cell.row, cell.method): cell.published for cell in BY_NAME["drtp-mnist"].cells}
    assert published["FC2-500", "dfa"] == 4.35
    assert published["CONV trained", "drtp"] == 1.81
    assert published["FC1-1000", "fa"] == 1.90
    assert published["FC1-500", "sdfa"] is None
    cifar = {(cell.row, cell.method): cell.published for cell in BY_NAME["drtp-cifar"].cells}
    assert cifar["FC1-500", "bp"] == 48.43
    assert cifar["CONV random", "drtp"] == 32.69
    biotorch = {(cell.row, cell.method): cell.published for cell in BY_NAME["biotorch"].cells}
    assert biotorch["LeNet, SGD", "dfa"] == 54.21
    assert biotorch["LeNet, Adam", "frsf"] == 16.83


@pytest.mark.parametrize(
    ("name", "row", "method"),
    [
        ("drtp-mnist", "FC2-500", "drtp"),
        ("drtp-mnist", "CONV random", "dfa"),
        ("principled-fc", "FC, batch norm", "dfa"),
        ("biotorch", "LeNet, Adam", "frsf"),
        ("notebook-mnist", "784-800-10", "dfa"),
        ("drtp-regression", "256-100-100-10", "sdfa"),
        ("vision-rates", "FC, tanh", "shallow"),
    ],
)
def test_a_small_run_answers_a_cell(name, row, method):
    table = quick(BY_NAME[name])
    cell = next(cell for cell in table.cells if (cell.row, cell.method) == (row, method))
    result = table.run(cell, 0, RunContext(scale="quick", epochs=2))
    assert math.isfinite(result["metrics"][cell.metric])
    assert result["metrics"]["epochs"] == 2
    assert result["dataset"] == cell.dataset


def test_the_length_of_a_table_is_overruled_by_the_commands(monkeypatch):
    asked = []
    monkeypatch.setattr(cells.train, "train", lambda config: asked.append(config.preset) or {"seed": 0})
    cell = next(cell for cell in BY_NAME["drtp-mnist"].cells if cell.row == "CONV random")
    for context in (RunContext(), RunContext(epochs=100)):
        BY_NAME["drtp-mnist"].run(cell, 0, context)
    assert [preset.epochs for preset in asked] == [20, 100]


def test_zero_weights_start_every_method_but_backpropagation_and_shallow():
    inits = {name: preset.init for name, preset in drtp.PRESETS.items() if "classification" in name}
    assert {name.rsplit("_", 1)[1] for name, init in inits.items() if init == "he"} == {"bp", "shallow"}


def test_presets_of_a_row_differ_by_nothing_but_the_method():
    rows = {name.rsplit("_", 1)[0] for name in drtp.PRESETS if "mnist" in name or "cifar" in name}
    for row in rows:
        found = [replace(PRESETS[f"{row}_{method.value}"], method=Method.BP) for method in drtp.METHODS]
        assert all(preset == found[0] for preset in found)


def best_factors(lines):
    """By row and method that were run to the end, the factor on the rate with the lowest validation error."""
    errors = {line["preset"]: line["result"]["metrics"]["val_error"] for line in lines}
    errors = {preset: math.inf if error is None else error for preset, error in errors.items()}  # None: it diverged
    rows = {}
    for cell in BY_NAME["vision-rates"].cells:
        rows.setdefault((cell.row, cell.method), []).append((cell.key, float(cell.column.split()[0])))
    best = {}
    for (row, method), tried in rows.items():
        if errors.keys() >= {preset for preset, _ in tried}:  # what was not run to its end says nothing
            best.setdefault(row, {})[method] = min(tried, key=lambda pair: errors[pair[0]])[1]
    return best


def test_what_the_notes_say_of_rates_is_what_was_found_on_validation_images():
    found = best_factors(read(BY_NAME["vision-rates"].path(RESULTS)))
    assert {row: {str(m): factor for m, factor in best.items()} for row, best in notes.BEST.items()} == found


def test_the_best_factor_is_that_of_the_lowest_validation_error_of_a_row_that_was_run_to_its_end():
    errors = {"0.01": 0.6, "0.03": 0.4, "0.1": 0.5, "0.3": 0.9}
    lines = [
        {"preset": f"biotorch_lenet_bp_lr-{rate}", "result": {"metrics": {"val_error": error, "test_error": 1 - error}}}
        for rate, error in errors.items()
    ]
    assert best_factors(lines) == {"LeNet, SGD": {"bp": 0.3}}
    lines[1]["result"]["metrics"]["val_error"] = None
    assert best_factors(lines) == {"LeNet, SGD": {"bp": 1}}
    assert best_factors(lines[1:]) == {}


def test_every_method_of_a_row_is_tried_at_the_same_factors_and_nothing_else_differs_from_its_preset():
    tried = {}
    for cell in BY_NAME["vision-rates"].cells:
        assert cell.metric == "val_error"
        preset, base = PRESETS[cell.key], PRESETS[cell.key.partition("_lr-")[0]]
        same = replace(preset, lr=base.lr, epochs=base.epochs, hold_out=base.hold_out, train_images=None)
        assert (same, preset.epochs, preset.hold_out) == (base, 1, 5000)
        assert preset.lr == pytest.approx(base.lr * float(cell.column.split()[0]), rel=1e-12)
        tried.setdefault((cell.row, preset.train_images), {}).setdefault(cell.method, []).append(preset.lr / base.lr)
    assert len(tried) == 4  # one length a row
    for by_method in tried.values():
        assert {"bp", "dfa"} <= by_method.keys()
        assert all(factors == pytest.approx([0.1, 0.3, 1, 3]) for factors in by_method.values())


def test_the_note_on_a_row_names_the_best_factor_of_every_method(monkeypatch):
    assert "lacks runs" in notes.note_of("no such row")
    monkeypatch.setitem(notes.BEST, "LeNet, SGD", {Method.BP: 0.3, Method.DFA: 3.0})
    assert notes.note_of("LeNet, SGD") == (
        "LeNet, SGD after one epoch: of 0.1, 0.3, 1 and 3 times the rate the one with the lowest validation error is "
        "0.3 by BP, 3 by DFA (table `vision-rates`). The row keeps the rate itself."
    )


@pytest.mark.parametrize(
    ("table", "row"),
    [
        ("principled-fc", "FC, tanh"),
        ("principled-cnn", "CNN, tanh"),
        ("biotorch", "LeNet, SGD"),
        ("drtp-mnist", "CONV trained"),
    ],
)
def test_a_row_whose_rates_are_tried_has_the_note_in_its_own_table(table, row):
    assert notes.note_of(row) in BY_NAME[table].notes
    assert row in {cell.row for cell in BY_NAME[table].cells}
    tried = {cell.key.partition("_lr-")[0] for cell in BY_NAME["vision-rates"].cells if cell.row == row}
    assert tried <= {cell.key for cell in BY_NAME[table].cells}


def test_the_results_have_a_block_for_every_table():
    text = (Path(tables.__file__).parent / "RESULTS.md").read_text(encoding="utf-8")
    for table in TABLES:
        assert f"<!-- results:{table.name} -->" in text
