"""The click tables: every cell names a preset that exists, a small run answers it, and the report draws the runs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.tables import RunContext
from harness.tables.aggregate import only, with_methods
from harness.tables.results import read
from recsys import tables
from recsys.preset import MODELS
from recsys.presets import PRESETS
from recsys.report import sections
from tinydfa import Method

RESULTS = Path(tables.__file__).parents[1] / "results"
QUICK = RunContext(scale="quick")
BY_NAME = {table.name: table for table in tables.TABLES}


@pytest.mark.parametrize("table", tables.TABLES, ids=lambda table: table.name)
def test_every_cell_has_a_place_of_its_own_and_a_preset_of_its_method(table):
    places = [(cell.row, cell.column, cell.method) for cell in table.cells]
    assert len(set(places)) == len(places)
    for cell in table.cells:
        preset = cell.preset
        assert (preset.method, MODELS[preset.model]) == (Method(cell.method), cell.row.split(",")[0]) or (
            cell.row == "the teacher itself"
        )


@pytest.mark.parametrize("table", tables.TABLES, ids=lambda table: table.name)
def test_a_cell_carries_the_preset_that_it_is_filed_under(table):
    for cell in table.cells:
        name, _, setting = cell.key.partition("_embedding-")
        assert cell.preset == replace(PRESETS[name], **({"embedding_feedback": setting} if setting else {}))


def test_a_preset_of_our_own_has_the_rate_that_was_best_of_those_tried():
    found = {
        line["preset"]: line["result"]["metrics"]["val_auc"] for line in read(BY_NAME["recsys-rates"].path(RESULTS))
    }
    rows = {}
    for cell in BY_NAME["recsys-rates"].cells:
        rows.setdefault(cell.key.rpartition("_lr-")[0], []).append(cell.key)
    for row, tried in rows.items():
        if found.keys() >= set(tried):  # a row that was not run to its end chooses nothing
            assert PRESETS[row].lr == PRESETS[max(tried, key=found.__getitem__)].lr, row


def test_published_numbers_stand_under_their_own_data_set_and_method():
    cells = {(cell.row, cell.column, cell.method): cell.published for cell in BY_NAME["table2"].cells}
    assert cells["DCN", "Criteo AUC", "bp"] == 0.81036
    assert cells["DCN", "Criteo log loss", "dfa"] == 0.45017
    assert cells["AFN", "Criteo_x1 AUC", "bp"] == 0.8107
    assert cells["AFN", "Criteo_x1 AUC", "dfa"] is None
    assert all(number is None for (_, column, _), number in cells.items() if "Criteo" not in column)
    shallow = {(cell.row, cell.column): cell.published for cell in BY_NAME["tableA3"].cells}
    assert shallow["DCN", "Criteo AUC"] == 0.73240
    assert "FM" not in {row for row, _ in shallow}


@pytest.mark.parametrize(
    ("table", "row", "method", "metric"),
    [
        ("table2", "FM", "bp", "best_possible_auc"),
        ("tableA1", "AFN", "dfa", "alignment"),
        ("recsys-embedding", "AFN, DFA's signal", "dfa", "test_auc"),
    ],
)
def test_a_cell_runs_small_on_the_embedded_log(monkeypatch, table, row, method, metric):
    monkeypatch.setattr(tables, "QUICK_ROWS", 2000)
    monkeypatch.setattr(tables, "QUICK_EPOCHS", 1)
    cell = next(cell for cell in BY_NAME[table].cells if (cell.row, cell.method) == (row, method))
    result = BY_NAME[table].run(replace(cell, dataset="synthetic"), 0, QUICK)
    assert (result["dataset"], result["method"]) == ("synthetic", method)
    assert -1 <= result["metrics"][metric] <= 1
    json.dumps(result, allow_nan=False)


def test_what_embeddings_learn_is_decided_by_the_row(monkeypatch):
    seen = []
    monkeypatch.setattr(tables.train, "train", lambda config: seen.append(config.preset) or {})
    monkeypatch.setattr(tables, "slim", lambda result: result)
    for cell in BY_NAME["recsys-embedding"].cells:
        BY_NAME["recsys-embedding"].run(cell, 0, RunContext())
        model, what = cell.row.split(", ", 1)
        words = {"off": "nothing, as released", "on": "DFA's signal", "through": "the gradient of the first layers"}
        assert words[seen[-1].embedding_feedback] == what
        assert MODELS[seen[-1].model] == model


@pytest.mark.parametrize("method", ["fa", "shallow"])
def test_a_method_without_a_signal_for_embeddings_has_no_row_in_their_table(method):
    table = with_methods(BY_NAME["recsys-embedding"], [method])
    with pytest.raises(UserError, match=f"{method} sends no signal of its own to the embeddings"):
        table.run(table.cells[0], 0, QUICK)


def test_a_row_by_another_method_has_the_settings_of_dfa(monkeypatch):
    seen = []
    monkeypatch.setattr(tables.train, "train", lambda config: seen.append(config.preset) or {})
    monkeypatch.setattr(tables, "slim", lambda result: result)
    cell = with_methods(only(BY_NAME["table2"], ["ml-100k"]), ["sdfa"]).cells[0]
    assert cell.key == "deepfm_dfa_ml-100k+sdfa"
    tables.run(cell, 0, RunContext())
    tables.run(cell, 0, RunContext(epochs=2))
    expected = replace(PRESETS["deepfm_dfa_ml-100k"], method=Method.SDFA)
    assert seen == [expected, replace(expected, max_epochs=2)]


def test_the_report_draws_what_was_run_and_nothing_else(tmp_path):
    folder = tmp_path / "recsys"
    folder.mkdir()
    assert sections(tmp_path, QUICK) == []

    def write(name, method, **curves):
        line = {"row": "DCN", "dataset": "adult", "method": method, "scale": "quick", "seed": 0, "preset": "any"}
        line["result"] = {"curves": curves}
        with (folder / f"{name}.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    write("table2", "bp", val_auc=[0.6, 0.7])
    write("tableA3", "shallow", val_auc=[0.5, 0.6, 0.6])
    write("tableA1", "dfa", val_auc=[0.6, 0.7], **{"alignment a": [0.1, 0.2], "alignment b": [0.0, 0.3]})
    [section] = sections(tmp_path, QUICK)
    assert [figure.title for figure in section.figures] == ["Learning curves, Adult", "Alignment, Adult"]
    assert all(figure.image.startswith(b"\x89PNG") for figure in section.figures)
    assert sections(tmp_path, RunContext(scale="paper")) == []


def test_the_results_have_a_block_for_every_table():
    text = (Path(tables.__file__).parent / "RESULTS.md").read_text(encoding="utf-8")
    for table in tables.TABLES:
        assert f"<!-- results:{table.name} -->" in text
