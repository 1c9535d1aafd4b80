"""The tables of this folder: every cell names a preset that exists, and a small run answers it."""

import math
from dataclasses import replace

import pytest

from harness.aggregate import quick
from harness.tables import RunContext
from tinydfa import Method
from vision import presets_drtp, running
from vision.presets import all_presets
from vision.tables import TABLES

BY_NAME = {table.name: table for table in TABLES}


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_no_two_cells_share_a_place_and_every_method_exists(table):
    places = [(cell.row, cell.column, cell.method) for cell in table.cells]
    assert len(set(places)) == len(places)
    assert all(Method(cell.method) for cell in table.cells)


@pytest.mark.parametrize(
    "name", ["drtp-mnist", "drtp-rates", "drtp-cifar", "principled-fc", "principled-cnn", "biotorch", "notebook-mnist"]
)
def test_every_cell_names_a_preset_of_its_method(name):
    presets = all_presets()
    for cell in BY_NAME[name].cells:
        assert presets[cell.preset].method.value == cell.method


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
    monkeypatch.setattr(running.train, "train", lambda config: asked.append(config) or {"seed": 0})
    cell = next(cell for cell in BY_NAME["drtp-mnist"].cells if cell.row == "CONV random")
    for context in (RunContext(), RunContext(epochs=100)):
        BY_NAME["drtp-mnist"].run(cell, 0, context)
    assert [config.epochs for config in asked] == [1, 100]


def test_zero_weights_start_every_method_but_backpropagation_and_shallow():
    inits = {name: preset.init for name, preset in presets_drtp.PRESETS.items() if "classification" in name}
    assert {name.rsplit("_", 1)[1] for name, init in inits.items() if init == "he"} == {"bp", "shallow"}


def test_presets_of_a_row_differ_by_nothing_but_the_method():
    presets = all_presets()
    rows = {name.rsplit("_", 1)[0] for name in presets_drtp.PRESETS if "mnist" in name or "cifar" in name}
    for row in rows:
        found = [replace(presets[f"{row}_{method.value}"], method=Method.BP) for method in presets_drtp.METHODS]
        assert all(preset == found[0] for preset in found)
