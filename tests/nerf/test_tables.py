"""The tables of view synthesis: cells name presets that exist, a small run answers one, the report draws the runs."""

import base64
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import pytest

from harness.errors import UserError
from harness.tables import RunContext
from harness.tables.aggregate import quick
from harness.tables.results import read
from nerf import tables
from nerf.data import llff
from nerf.presets import PRESETS, RATES, TRIED, TRUNK
from nerf.report import sections
from tinydfa import Method

RESULTS = Path(tables.__file__).parents[1] / "results"
QUICK = RunContext(scale="quick")
BY_NAME = {table.name: table for table in tables.TABLES}
TINY = {"size": 20, "width": 16, "samples_coarse": 4, "samples_fine": 4, "rays": 32, "steps": 4, "test_views": 1}


@pytest.mark.parametrize("table", tables.TABLES, ids=lambda table: table.name)
def test_every_cell_has_a_place_of_its_own_and_a_preset_of_its_method(table):
    places = [(cell.row, cell.column, cell.method) for cell in table.cells]
    assert len(set(places)) == len(places)
    for cell in table.cells:
        assert cell.preset == PRESETS.get(cell.key)  # of the released networks there is none
        assert cell.preset is None or cell.preset.method == cell.method


def best_rates(lines):
    """By small preset that was run to the end: the rate of the best mean over scenes."""
    found, rows = {}, {}
    for line in lines:
        psnr = line["result"]["metrics"]["val_psnr"]
        found[line["preset"], line["dataset"]] = -math.inf if psnr is None else psnr  # None: it diverged
    for cell in BY_NAME["nerf-rates"].cells:
        row = next(name for name, presets in TRIED.items() if cell.key in presets)
        rows.setdefault(row, {}).setdefault(cell.preset.lr, []).append((cell.key, cell.dataset))
    return {
        row: max(tried, key=lambda rate: sum(found[run] for run in tried[rate]))
        for row, tried in rows.items()
        if found.keys() >= {run for runs in tried.values() for run in runs}  # one that was cut off chooses nothing
    }


def test_a_small_preset_has_the_rate_that_was_best_of_those_tried():
    best = best_rates(read(BY_NAME["nerf-rates"].path(RESULTS)))
    diverges_later = {"small_fdfa": 1e-2}
    assert best == {row: PRESETS[row].lr for row in best} | diverges_later


def test_the_best_rate_is_that_of_the_best_mean_over_scenes_and_a_row_that_was_cut_off_has_none():
    psnr = {"lego": dict.fromkeys(RATES, 10.0), "fern": dict.fromkeys(RATES, 10.0)}
    psnr["lego"] |= {1e-3: 20.0, 3e-3: 19.0, 1e-2: 5.0}
    psnr["fern"] |= {1e-3: 20.0, 3e-3: 18.0, 1e-2: 36.0}
    lines = {
        (scene, rate): {"preset": f"small_bp_lr-{rate:g}", "dataset": scene, "result": {"metrics": {"val_psnr": score}}}
        for scene, by_rate in psnr.items()
        for rate, score in by_rate.items()
    }
    assert best_rates(lines.values()) == {"small_bp": 1e-2}
    lines["fern", 1e-2]["result"]["metrics"]["val_psnr"] = None
    assert best_rates(lines.values()) == {"small_bp": 1e-3}
    assert best_rates(list(lines.values())[:-1]) == {}


def test_every_small_row_is_tried_at_the_same_rates_and_on_validation_views():
    tried = {}
    for cell in BY_NAME["nerf-rates"].cells:
        assert cell.metric == "val_psnr"
        assert (cell.preset.steps, cell.preset.val_views) == (400, 4)
        row = PRESETS[next(name for name, presets in TRIED.items() if cell.key in presets)]
        changes = {"lr": row.lr, "steps": row.steps, "test_views": row.test_views, "val_views": None}
        assert replace(cell.preset, **changes) == row
        tried.setdefault((cell.row, cell.method), []).append(cell.preset.lr)
    assert all(rates == [1e-3, 3e-3, 1e-2, 3e-2] for rates in tried.values())
    assert {cell.key for cell in BY_NAME["nerf-small"].cells} == set(TRIED) | set(TRUNK)  # these keep the rates


def test_published_numbers_are_those_of_the_two_papers():
    cells = {(cell.row, cell.method): cell.published for cell in BY_NAME["tableA5"].cells}
    assert (cells["lego", "bp"], cells["fern", "bp"]) == (32.54, 25.17)
    assert (cells["lego", "dfa"], cells["fern", "dfa"]) == (24.93, 21.82)
    assert all(number is None for (_, method), number in cells.items() if method == "shallow")
    assert len(cells) == 16 * 3


def test_the_means_of_table_1_are_those_of_the_scenes():
    means = {(cell.row, cell.method): cell.published for cell in BY_NAME["table1"].cells}
    scenes = {}
    for cell in BY_NAME["tableA5"].cells:
        row = "LLFF-Real" if cell.dataset in llff.NAMES else "NeRF-Synthetic"
        scenes.setdefault((row, cell.method), []).append(cell.published)
    for (row, method), numbers in scenes.items():
        expected = None if method == "shallow" else pytest.approx(sum(numbers) / 8, abs=0.006)
        assert means[row, method] == expected


@pytest.fixture(scope="module")
def result():
    patch = pytest.MonkeyPatch()
    patch.setattr(tables, "QUICK", TINY)
    cell = next(cell for cell in BY_NAME["nerf-small"].cells if cell.method == "dfa")
    yield BY_NAME["nerf-small"].run(replace(cell, dataset="synthetic"), 0, QUICK)
    patch.undo()


def test_a_cell_runs_small_on_the_generated_scene(result):
    assert (result["dataset"], result["method"]) == ("synthetic", "dfa")
    assert {"test_psnr", "test_ssim"} <= set(result["metrics"])
    json.dumps(result, allow_nan=False)


def test_a_rate_is_tried_small_on_the_generated_scene(monkeypatch):
    monkeypatch.setattr(tables, "QUICK", TINY)
    cell = next(cell for cell in BY_NAME["nerf-rates"].cells if cell.method == "bp")
    result = BY_NAME["nerf-rates"].run(replace(cell, dataset="synthetic"), 0, QUICK)
    assert (result["config"]["lr"], len(result["curves"]["val_views"])) == (1e-3, 4)
    assert result["metrics"]["val_psnr"] > 0


def test_what_a_result_keeps_to_be_looked_at_are_pictures_of_the_scene(result):
    kept = {name: base64.b64decode(text) for name, text in result["curves"]["pictures"].items()}
    for name in ("truth", "colour", "depth"):
        assert matplotlib.image.imread(io.BytesIO(kept[name]), format="png").shape[:2] == (20, 20)
    assert kept["film"].startswith(b"GIF89a")


def test_the_mean_over_scenes_is_of_all_scenes_of_the_set(monkeypatch):
    scores = dict(zip(llff.NAMES, range(8), strict=True))

    def fake(cell, scene, seed, context):
        return {"dataset": scene, "seed": seed, "metrics": {"test_psnr": scores[scene]}, "seconds": 1.0}

    monkeypatch.setattr(tables, "_train", fake)
    cell = next(cell for cell in BY_NAME["table1"].cells if cell.dataset == "nerf_llff")
    found = BY_NAME["table1"].run(cell, 0, RunContext())
    assert (found["dataset"], found["metrics"]["test_psnr"], found["seconds"]) == ("nerf_llff", 3.5, 8.0)


def test_a_small_mean_over_scenes_trains_the_one_scene_there_is_once(monkeypatch):
    trained = []
    monkeypatch.setattr(tables, "_train", lambda *arguments: trained.append(arguments) or {"seed": 0})
    for cell in quick(BY_NAME["table1"]).cells:
        BY_NAME["table1"].run(cell, 0, QUICK)
    assert len(trained) == 6  # two sets, three methods


def test_released_networks_have_no_small_form():
    with pytest.raises(UserError, match=r"nerf-released .*no small form"):
        BY_NAME["nerf-released"].run(quick(BY_NAME["nerf-released"]).cells[0], 0, QUICK)


def test_a_length_in_epochs_is_refused():
    with pytest.raises(UserError, match="--epochs has no meaning"):
        BY_NAME["nerf-small"].run(BY_NAME["nerf-small"].cells[0], 0, RunContext(epochs=3))


def test_the_report_draws_what_was_run_and_nothing_else(result, tmp_path):
    folder = tmp_path / "nerf"
    folder.mkdir()
    assert sections(tmp_path, QUICK) == []
    line = {
        "row": "generated solids",
        "dataset": "synthetic",
        "method": "dfa",
        "scale": "quick",
        "preset": "any",
        "seed": 0,
        "result": result,
    }
    (folder / "nerf-small.jsonl").write_text(json.dumps(line) + "\n")
    [section] = sections(tmp_path, QUICK)
    strip, film, curves = section.figures
    assert [figure.title.split(",")[0] for figure in section.figures] == [
        "Truth and renderings",
        "A walk around",
        "PSNR by step",
    ]
    assert (strip.is_gif, film.is_gif, curves.is_gif) == (False, True, False)
    assert sections(tmp_path, RunContext(scale="paper")) == []


def test_the_results_have_a_block_for_every_table():
    text = (Path(tables.__file__).parent / "RESULTS.md").read_text(encoding="utf-8")
    for table in tables.TABLES:
        assert f"<!-- results:{table.name} -->" in text


def test_a_cell_trains_its_own_preset_shortened_by_its_length(monkeypatch):
    trained = []
    monkeypatch.setattr(tables.train, "train", lambda config: trained.append(config.preset) or {})
    cell = next(cell for cell in BY_NAME["tableA5"].cells if cell.row == "lego" and cell.method == "dfa")
    other = replace(cell, key="of no preset", preset=replace(cell.preset, width=64), length={"steps": 9})
    BY_NAME["tableA5"].run(other, 0, RunContext())
    assert trained == [replace(PRESETS["synthetic_dfa"], width=64, steps=9)]


def test_a_small_run_of_a_large_preset_has_the_small_settings_of_its_method(monkeypatch):
    trained = []
    monkeypatch.setattr(tables.train, "train", lambda config: trained.append(config.preset) or {})
    cell = next(cell for cell in BY_NAME["figureA1"].cells if cell.method == "shallow")
    for method in ("shallow", "sdfa"):
        own = replace(cell, preset=replace(cell.preset, method=method))
        BY_NAME["figureA1"].run(own, 0, QUICK)
    shallow, sdfa = (replace(preset, precision="fp32") for preset in trained)
    assert shallow == replace(PRESETS["small_shallow"], **tables.QUICK)
    assert sdfa == replace(PRESETS["small_dfa"], method=Method.SDFA, **tables.QUICK)
