"""The tables of view synthesis: cells name presets that exist, a small run answers one, the report draws the runs."""

import base64
import io
import json
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import pytest

from harness.aggregate import quick
from harness.errors import UserError
from harness.tables import RunContext
from nerf import llff, tables
from nerf.presets import PRESETS
from nerf.report import sections
from tinydfa import Method

QUICK = RunContext(scale="quick")
BY_NAME = {table.name: table for table in tables.TABLES}
TINY = {"size": 20, "width": 16, "samples_coarse": 4, "samples_fine": 4, "rays": 32, "steps": 4, "test_views": 1}


@pytest.mark.parametrize("table", tables.TABLES, ids=lambda table: table.name)
def test_every_cell_has_a_place_of_its_own_and_a_preset_of_its_method(table):
    places = [(cell.row, cell.column, cell.method) for cell in table.cells]
    assert len(set(places)) == len(places)
    for cell in table.cells:
        assert cell.preset.startswith("released") or PRESETS[cell.preset].method is Method(cell.method)


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


def test_what_a_result_keeps_to_be_looked_at_are_pictures_of_the_scene(result):
    kept = {name: base64.b64decode(text) for name, text in result["curves"]["pictures"].items()}
    for name in ("truth", "colour", "depth"):
        assert matplotlib.image.imread(io.BytesIO(kept[name]), format="png").shape[:2] == (20, 20)
    assert kept["film"].startswith(b"GIF89a")


def test_the_mean_over_scenes_is_of_all_scenes_of_the_set(monkeypatch):
    scores = dict(zip(llff.NAMES, range(8), strict=True))

    def fake(preset, scene, seed, context):
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


def test_the_readme_has_a_block_for_every_table():
    text = (Path(tables.__file__).parent / "README.md").read_text(encoding="utf-8")
    for table in tables.TABLES:
        assert f"<!-- results:{table.name} -->" in text
