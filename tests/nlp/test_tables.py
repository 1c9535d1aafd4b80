"""Table 5: every cell names a preset that exists, a small run answers it, and the report draws the runs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.tables import RunContext
from harness.tables.results import read
from nlp import tables
from nlp.presets import PRESETS, TRIED
from nlp.report import sections
from tinydfa import Method

RESULTS = Path(tables.__file__).parents[1] / "results"
QUICK = RunContext(scale="quick")
BY_NAME = {table.name: table for table in tables.TABLES}


@pytest.mark.parametrize("table", tables.TABLES, ids=lambda table: table.name)
def test_every_cell_has_a_place_of_its_own_and_a_preset_of_its_method(table):
    places = [(cell.row, cell.column, cell.method) for cell in table.cells]
    assert len(set(places)) == len(places)
    for cell in table.cells:
        assert cell.preset == PRESETS[cell.key]
        assert cell.preset.method == cell.method


def test_published_numbers_are_those_of_the_paper_and_stand_beside_the_published_settings_alone():
    cells = {(cell.row, cell.column): cell.published for cell in BY_NAME["table5"].cells}
    assert {row: number for (row, column), number in cells.items() if column == "WikiText-103"} == {
        "backpropagation": 34.4,
        "backpropagation, beta2 = 0.999": 29.8,
        "macro, settings of backpropagation": 95.0,
        "macro, + Adam": 77.1,
        "macro, + beta2 = 0.999": 55.0,
        "macro, + schedule": 52.0,
        "micro, settings of backpropagation": 182.0,
        "micro, + Adam": 166.0,
        "micro, + beta2 = 0.999": 99.9,
        "micro, + schedule": 93.3,
        "shallow": 428.0,
    }
    assert all(number is None for (_, column), number in cells.items() if column != "WikiText-103")


@pytest.mark.parametrize("name", ["nlp-rates", "nlp-ladder-rates"])
def test_a_small_row_has_the_rate_that_was_best_of_those_tried(name):
    table = BY_NAME[name]
    found = {line["preset"]: line["result"]["metrics"]["val_perplexity"] for line in read(table.path(RESULTS))}
    rows = {}
    for cell in table.cells:
        row = next(name for name, presets in TRIED.items() if cell.key in presets)
        rows.setdefault(row, []).append(cell.key)
    for row, tried in rows.items():
        if found.keys() >= set(tried):  # a row that was not run to its end chooses nothing
            assert PRESETS[row].lr == PRESETS[min(tried, key=found.__getitem__)].lr, row


def test_a_row_of_the_gap_takes_back_what_it_names_and_nothing_else():
    for cell in BY_NAME["nlp-gap"].cells:
        mine = cell.preset
        if mine.method is Method.DFA:
            ours = PRESETS["small_ours_gap" if cell.row.startswith("macro") else "small_micro_ours"]
            assert replace(mine, last_block=ours.last_block, dropout=ours.dropout) == ours
            assert (mine.last_block == "projected") == ("projected" in cell.row)
        assert (mine.dropout > 0) == ("with dropout" in cell.row)


@pytest.mark.parametrize(("table", "metric"), [("table5", "val_word_perplexity"), ("nlp-alignment", "alignment")])
def test_a_cell_runs_small_on_the_embedded_text(monkeypatch, table, metric):
    monkeypatch.setattr(tables, "QUICK", tables.QUICK | {"steps": 4, "validate_every": 2, "layers": 1})
    cell = next(cell for cell in BY_NAME[table].cells if cell.row == "macro, ours")
    result = BY_NAME[table].run(replace(cell, dataset="synthetic"), 0, QUICK)
    assert (result["dataset"], result["method"]) == ("synthetic", "dfa")
    assert result["metrics"][metric] is not None
    assert len(result["curves"]["val_loss"]) == 2
    if table == "table5":
        assert result["curves"]["sample"]["text"]
    json.dumps(result, allow_nan=False)


def test_the_report_draws_what_was_run_and_nothing_else(tmp_path):
    folder = tmp_path / "nlp"
    folder.mkdir()
    assert sections(tmp_path, QUICK) == []

    def write(name, row, **curves):
        line = {"row": row, "dataset": "synthetic", "method": "dfa", "scale": "quick", "seed": 0, "preset": "any"}
        line["result"] = {"curves": curves}
        with (folder / f"{name}.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    sample = {"prompt": "The", "text": " end"}
    for row in ("backpropagation", "macro, + Adam", "shallow"):
        write("table5", row, step=[10, 20], val_loss=[5.0, 4.0], sample=sample)
    write("nlp-alignment", "macro, ours", alignment_step=[10, 20], **{"alignment blocks.0.point": [0.1, 0.2]})
    [section] = sections(tmp_path, QUICK)
    assert [figure.title.split(",")[0] for figure in section.figures] == [
        "Learning curves",
        "Alignment in the Transformer",
    ]
    assert all(figure.image.startswith(b"\x89PNG") for figure in section.figures)
    assert [(excerpt.title, excerpt.text) for excerpt in section.excerpts] == [
        ("backpropagation", "[The]  end"),
        ("shallow", "[The]  end"),
    ]
    assert sections(tmp_path, RunContext(scale="paper")) == []


def test_the_results_have_a_block_for_every_table():
    text = (Path(tables.__file__).parent / "RESULTS.md").read_text(encoding="utf-8")
    for table in tables.TABLES:
        assert f"<!-- results:{table.name} -->" in text


def test_a_cell_trains_its_own_preset_shortened_by_its_length(monkeypatch):
    trained = []
    monkeypatch.setattr(tables.train, "train", lambda config: trained.append(config.preset) or {"metrics": {}})
    cell = next(cell for cell in BY_NAME["table5"].cells if cell.dataset == "wikitext-103" and cell.key == "micro")
    other = replace(cell, key="of no preset", preset=replace(cell.preset, layers=3), length={"epochs": 2})
    BY_NAME["table5"].run(other, 0, RunContext())
    assert trained == [replace(PRESETS["micro"], layers=3, epochs=2)]
    BY_NAME["table5"].run(other, 0, RunContext(epochs=5))
    assert trained[1] == replace(PRESETS["micro"], layers=3, epochs=5, steps=None)
