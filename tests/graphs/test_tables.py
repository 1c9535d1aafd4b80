import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from graphs import embed, tables
from graphs.presets import BEST, MODELS, PRESETS, PSEUDO_BEST
from graphs.report import sections
from graphs.tables import cells
from graphs.train import Config
from harness import cli
from harness.errors import UserError
from harness.options import make
from harness.presets import named_preset
from harness.tables import RunContext
from harness.tables.aggregate import with_methods
from harness.tables.results import read
from tinydfa import Method

RESULTS = Path(tables.__file__).parents[2] / "results"
QUICK = RunContext(scale="quick")


def named(name):
    [table] = [table for table in tables.TABLES if table.name == name]
    return table


def small(cell):
    return replace(cell, dataset="synthetic")


def test_every_published_table_of_the_task_is_there_with_a_row_per_model():
    assert [table.name for table in tables.PUBLISHED] == ["table3", "tableA4", "tableA2", "table4", "figure2"]
    assert set(tables.PUBLISHED) < set(tables.TABLES)
    for name in ("table3", "tableA4", "tableA2"):
        assert list(dict.fromkeys(cell.row for cell in named(name).cells)) == list(MODELS.values())


def test_every_cell_carries_the_preset_of_its_name_and_its_method():
    for table in tables.TABLES:
        for cell in table.cells:
            assert cell.preset.method is Method(cell.method)
            assert cell.key.startswith("gae_") or cell.preset == named_preset(PRESETS, cell.key)


def test_a_row_of_another_method_trains_by_it(monkeypatch):
    monkeypatch.setattr(cells, "QUICK_EPOCHS", 2)
    cell = next(cell for cell in with_methods(named("table3"), ["drtp"]).cells if cell.row == "GraphConv")
    result = named("table3").run(small(cell), 0, QUICK)
    assert (result["method"], result["config"]["weight_decay"]) == ("drtp", PRESETS["gcn_dfa"].weight_decay)


def test_a_cell_runs_at_its_length():
    cell = replace(named("table3").cells[0], dataset="synthetic", length={"epochs": 3})
    assert len(named("table3").run(cell, 0, RunContext())["curves"]["train_loss"]) == 3
    assert len(named("table3").run(cell, 0, RunContext(epochs=2))["curves"]["train_loss"]) == 2


@pytest.mark.parametrize(
    ("table", "place", "number"),
    [
        ("table3", ("GraphConv", "bp", "Cora"), 80.1),
        ("table3", ("GraphConv", "dfa", "Cora"), 79.9),
        ("table3", ("SplineConv", "dfa", "CiteSeer"), 69.8),
        ("table3", ("DNAConv", "bp", "PubMed"), 87.2),
        ("tableA4", ("GATConv", "shallow", "PubMed"), 67.8),
        ("table4", ("Graph auto-encoder", "dfa", "CiteSeer AP"), 88.9),
        ("tableA2", ("SplineConv", "dfa", "Cora"), 0.56),
    ],
)
def test_a_published_number_stands_at_its_place(table, place, number):
    found = {(cell.row, cell.method, cell.column): cell.published for cell in named(table).cells}
    assert found[place] == number


@pytest.mark.parametrize(
    ("table", "fields", "chosen"),
    [
        ("gap-grid", ("weight_decay", "dropout"), BEST),
        ("pseudo-errors-grid", ("pseudo_alpha", "pseudo_threshold"), PSEUDO_BEST),
    ],
)
def test_a_tuned_row_has_the_settings_with_the_best_mean_validation_accuracy_of_those_tried(table, fields, chosen):
    runs = {}
    for line in read(named(table).path(RESULTS)):
        runs.setdefault(line["preset"], []).append(line["result"]["metrics"]["val_accuracy"])
    assert runs.keys() == {cell.key for cell in named(table).cells}
    assert {len(found) for found in runs.values()} == {3}
    tried = {}
    for name, found in runs.items():
        settings = tuple(getattr(PRESETS[name], field) for field in fields)
        tried.setdefault(re.split("_(?:decay|alpha)-", name)[0], []).append((sum(found) / 3, settings))
    assert {name: max(pairs)[1] for name, pairs in tried.items()} == chosen


def test_a_cell_runs_small_on_the_synthetic_graph(monkeypatch):
    monkeypatch.setattr(cells, "QUICK_EPOCHS", 2)
    for name in ("table3", "tableA2", "table4"):
        cell = named(name).cells[1]
        result = named(name).run(small(cell), 0, QUICK)
        assert result["dataset"] == "synthetic"
        assert (-1 if cell.metric.startswith("alignment") else 0) <= result["metrics"][cell.metric] <= 1
        json.dumps(result, allow_nan=False)


def test_curves_are_kept_for_the_first_seeds_only(monkeypatch):
    monkeypatch.setattr(cells, "QUICK_EPOCHS", 2)
    cell = small(named("table3").cells[0])
    kept = ["curves" in named("table3").run(cell, seed, QUICK) for seed in (0, 2, 3)]
    assert kept == [True, True, False]


@pytest.fixture(scope="module")
def maps():
    methods = (Method.BP, Method.DFA, Method.SHALLOW)
    return [embed.embed(make(Config, method=method, epochs=60), iterations=100) for method in methods]


def test_trained_hidden_layers_separate_the_classes_better_than_shallow_ones(maps):
    bp, dfa, shallow = (result["metrics"]["silhouette"] for result in maps)
    assert bp > shallow + 0.05
    assert dfa > shallow + 0.05


def test_a_map_is_that_of_its_seed(maps):
    """Up to rounding errors: sums of float32 may differ in their last bits with the place of a tensor in memory."""
    again, other = (
        embed.embed(make(Config, method=Method.DFA, epochs=60, seed=seed), iterations=100)["curves"] for seed in (0, 1)
    )
    for axis in ("x", "y"):
        first = np.array(maps[1]["curves"][axis])
        assert np.abs(np.array(again[axis]) - first).max() < 0.1
        assert np.abs(np.array(other[axis]) - first).max() > 1.0


def test_the_picture_is_a_png_of_three_maps(maps):
    assert embed.draw(maps).startswith(b"\x89PNG")


def test_embedding_another_model_is_refused():
    with pytest.raises(UserError, match="Figure 2 is about gcn"):
        embed.embed(make(Config, model="gat"))


def test_silhouettes_are_those_of_their_definition():
    """(b - a) / max(a, b) of each point: a to its own class, b to the other, at 0, 1 | 3, 6 on a line."""
    points, label = np.array([[0.0], [1.0], [3.0], [6.0]]), np.array([0, 0, 1, 1])
    each = [(4.5 - 1) / 4.5, (3.5 - 1) / 3.5, (2.5 - 3) / 3, (5.5 - 3) / 5.5]
    assert embed.silhouette(points, label) == pytest.approx(sum(each) / 4)


@pytest.mark.parametrize("value", [0.0, 0.7, float("nan")])
def test_a_hidden_layer_that_is_the_same_everywhere_is_refused(value, monkeypatch):
    def flat(config):
        return torch.full((20, 16), value), None, 0.5

    monkeypatch.setattr(embed, "hidden_activations", flat)
    with pytest.raises(UserError, match=r"hidden layer of gcn has the same activations at every node after 3 epochs"):
        embed.embed(make(Config, model="gcn", method=Method.SHALLOW, epochs=3))


def test_the_report_draws_what_was_run_and_nothing_else(maps, tmp_path):
    folder = tmp_path / "graphs"
    folder.mkdir()
    assert sections(tmp_path, QUICK) == []

    def write(name, row, result, **curves):
        line = {
            "row": row,
            "dataset": "synthetic",
            "method": result["method"],
            "scale": "quick",
            "seed": 0,
            "preset": "any",
        }
        line["result"] = result | {"curves": curves or result["curves"]}
        with (folder / f"{name}.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    write("table3", "GraphConv", maps[0], val_accuracy=[0.1, 0.4, 0.5])
    write("tableA4", "GraphConv", maps[2], val_accuracy=[0.1, 0.2, 0.2])
    write("tableA2", "DNAConv", maps[1], epoch=[10, 20], a=[0.1, 0.5], a_std=[0.1, 0.1], b=[0.0, 0.2], b_std=[0, 0])
    for result in maps:
        write("figure2", "GraphConv", result)
    [section] = sections(tmp_path, QUICK)
    assert [figure.title.split(",")[0] for figure in section.figures] == ["Learning curves", "Alignment", "Embeddings"]
    assert all(figure.image.startswith(b"\x89PNG") for figure in section.figures)
    assert sections(tmp_path, RunContext(scale="paper")) == []


def test_the_embedding_command_writes_its_picture(tmp_path, capsys):
    out = tmp_path / "new" / "maps.png"
    embed.main(embed.Config(epochs=2, iterations=10, out=out))
    assert out.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr()
    assert str(out) in printed.out
    stages = [f"{n} of 3: training by {title}" for n, title in enumerate(embed.TITLES.values(), start=1)]
    assert [line.split(",")[0] for line in printed.err.splitlines()] == stages


@pytest.mark.parametrize("iterations", [0, -1])
def test_a_map_takes_at_least_one_iteration(iterations):
    with pytest.raises(UserError, match=f"--iterations {iterations}: give at least 1"):
        embed.Config(iterations=iterations)


def test_a_map_takes_the_seeds_that_a_run_takes():
    with pytest.raises(UserError, match="--seed -1: give a number from 0"):
        embed.Config(seed=-1)


def test_a_picture_with_too_long_a_name_is_the_users_mistake(capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.run(embed.Config, embed.main, ["--out", "x" * 300])
    assert "File name too long" in capsys.readouterr().err


def test_a_folder_is_no_picture(tmp_path):
    with pytest.raises(UserError, match=r"is a folder\. Name a file, such as .*embeddings\.png"):
        embed.Config(out=tmp_path)


def test_a_picture_that_cannot_be_finished_leaves_the_one_before_it_whole(tmp_path, monkeypatch):
    out = tmp_path / "maps.png"
    out.write_bytes(b"before")
    monkeypatch.setattr(embed, "embed", lambda config, iterations: {})
    monkeypatch.setattr(embed, "draw", lambda results: b"after")

    def killed(source, target):
        raise OSError("no space")

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(UserError, match=r"cannot write .*maps\.png"):
        embed.main(embed.Config(out=out))
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"before"]


def test_the_results_have_a_block_for_every_table():
    text = (Path(tables.__file__).parents[1] / "RESULTS.md").read_text(encoding="utf-8")
    for table in tables.TABLES:
        assert f"<!-- results:{table.name} -->" in text
