"""Options that exclude each other are refused before anything is trained or scored."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest

from harness import cli
from harness.command import command
from harness.errors import UserError
from harness.options import make
from nerf import test as scoring
from nerf import train
from nerf.config import Config
from nerf.data.load import load_scene
from nerf.presets import PRESETS
from nerf.saved import load_run
from nerf.scene.views import Scene
from tests.nerf.commands import start
from tests.nerf.data.scene_files import llff_row, write_llff
from tests.nerf.data.test_transforms import whole

SMALL = {"preset": "debug_dfa", "steps": 2, "width": 8, "rays": 8, "samples_coarse": 4, "samples_fine": 4}


def train_command(arguments):
    command("nerf", Config, train.load, train.train, about=Scene.facts, argv=arguments)


def score_command(arguments):
    cli.run(scoring.Config, scoring.main, arguments)


@pytest.fixture
def data(tmp_path):
    """A data root with a scene of each format, called "mine"."""
    whole(tmp_path / "nerf_synthetic" / "mine", 9)
    rows = np.stack([llff_row(*np.eye(3), [k, 0, 0]) for k in range(9)])
    write_llff(tmp_path / "nerf_llff" / "mine", rows, [np.full((6, 8, 3), 9 * k) for k in range(9)])
    return tmp_path


def refused(command, arguments, capsys):
    """What a command says, in one line, as it leaves with status 2."""
    with pytest.raises(SystemExit) as leaving:
        command([str(argument) for argument in arguments])
    complaint = capsys.readouterr().err
    assert leaving.value.code == 2
    [line] = [line for line in complaint.splitlines() if line.startswith("error:")]
    assert complaint.endswith(line + "\n")
    return line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--near", "1"], "--near 1.0 with --dataset synthetic: the solids have their own"),
        (["--far", "9"], "--far 9.0 with --dataset synthetic"),
        (["--background", "white"], "--background white with --dataset synthetic"),
        (["--dataset", "llff", "--near", "1"], "--near 1.0 with --dataset llff: poses_bounds.npy has them"),
        (["--dataset", "llff", "--far", "9"], "--far 9.0 with --dataset llff"),
        (["--dataset", "blender", "--near", "3", "--far", "2"], "near is 3.0 and far is 2.0; near must be less"),
        (["--dataset", "blender", "--near", "2", "--far", "2"], "near must be less"),
        (["--dataset", "blender", "--near", "7"], "rays would run from 7 to 6"),
        (["--dataset", "blender", "--near", "0"], "near is 0.0; it must be above 0"),
        (["--dataset", "blender", "--far", "inf"], "far is inf; it must be above 0, and finite"),
        (["--dataset", "blender", "--far", "nan"], "far is nan; it must be above 0, and finite"),
        (["--dataset", "blender", "--size", "21"], "--size 21: the pictures are 20 wide"),
        (["--dataset", "blender", "--size", "3"], "--size 3: .*height of 1.50"),
        (["--dataset", "blender", "--test-views", "3"], "--test-views 3: the scene has 2. Give fewer"),
        (["--dataset", "blender", "--test-views", "8"], "--test-views 8: the scene has 2. Give fewer"),  # of a preset
        (["--dataset", "blender", "--val-views", "4"], "--val-views 4: mine has no validation views of its own"),
        (["--dataset", "blender", "--val-views", "0"], "val_views is 0; it must be above 0"),
        (["--dataset", "blender", "--background", "grey"], "grey"),
        (["--scene", "mine"], "the synthetic data set has one scene, solids"),
        (["--preset", "small_bp", "--method", "dfa"], "small_bp"),
        (["--samples-coarse", "2", "--samples-fine", "4"], "samples_coarse is 2"),
    ],
)
def test_training_refuses_what_it_could_not_follow_and_leaves_nothing(arguments, message, data, tmp_path, capsys):
    if "--dataset" in arguments:
        arguments = [*arguments, "--scene", "mine", "--data-dir", data]
    preset = [] if "--preset" in arguments else ["--preset", "debug_dfa", "--size", "4"]
    preset = preset[:2] if "--size" in arguments else preset
    found = refused(train_command, [*preset, *arguments, "--out", tmp_path / "run"], capsys)
    assert re.search(message, found), found
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("preset", ["small_bp", "small_fitted", "real_dfa"])
def test_a_preset_that_scores_more_views_than_there_are_is_no_mistake_when_a_program_hands_it(preset, data):
    config = Config(preset=replace(PRESETS[preset], size=20), dataset="blender", scene="mine", data_dir=data)
    assert len(train.load(config).test) == 2


def test_range_and_background_are_kept_for_scoring_and_a_resume_wants_the_same(data, tmp_path, capsys):
    given = {"dataset": "blender", "scene": "mine", "data_dir": data, "near": 1.5, "far": 7.0, "background": "white"}
    start(make(Config, **SMALL | given, size=4, out=tmp_path / "run"))
    _, preset = load_run(tmp_path / "run")
    assert (preset.near, preset.far, preset.background) == (1.5, 7.0, "white")
    scene = load_scene("blender", "mine", data, **preset.reading())
    assert (scene.near, scene.far, scene.white_background) == (1.5, 7.0, True)
    capsys.readouterr()
    scoring.main(scoring.Config(run=tmp_path / "run", data_dir=data))
    scores = json.loads(capsys.readouterr().out)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert len(scores["views"]) == 2
    assert result["config"]["near"] == 1.5
    assert math.isfinite(scores["metrics"]["test_psnr"])
    changed = ["--resume", "--out", tmp_path / "run", "--preset", "debug_dfa", "--steps", "2", "--width", "8"]
    changed += ["--rays", "8", "--samples-coarse", "4", "--samples-fine", "4", "--size", "4", "--near", "1"]
    changed += ["--far", "7", "--background", "white", "--dataset", "blender", "--scene", "mine", "--data-dir", data]
    assert "near: 1.5 -> 1.0" in refused(train_command, changed, capsys)


def test_scoring_refuses_what_it_could_not_follow(data, tmp_path, capsys):
    start(make(Config, **SMALL | {"samples_fine": 0}, out=tmp_path / "one"))
    start(make(Config, **SMALL, size=4, dataset="llff", scene="mine", data_dir=data, out=tmp_path / "ahead"))
    capsys.readouterr()
    one, ahead = tmp_path / "one", tmp_path / "ahead"
    for arguments, message in (
        ([one, "--dual"], "--dual: .* was trained with --samples-fine 0 and has one network"),
        ([one, "--near", 1], "--near 1.0: a run has its own"),
        ([one, "--background", "black"], "--background black: a run has its own"),
        ([one, "--views", 100], "--views 100: the scene has 12 test views"),
        ([one, "--dataset", "llff", "--scene", "mine", "--data-dir", data], "saw synthetic, in other coordinates"),
        ([ahead, "--dataset", "synthetic", "--scene", "solids"], "saw llff, in other coordinates"),
        (
            [one, "--dataset", "blender", "--scene", "mine", "--size", 20, "--data-dir", data],
            "mine has another background than the run",
        ),
        (["--checkpoint-2020", one / "checkpoint.pt", "--near", "nan"], "--near nan: it must be above 0"),
        ([one, "--checkpoint-2020", one / "checkpoint.pt"], "scores one thing"),
    ):
        found = refused(score_command, [*arguments, "--device", "cpu"], capsys)
        assert re.search(message, found), found


def test_scores_that_cannot_be_written_are_printed(tmp_path, capsys):
    start(make(Config, **SMALL, out=tmp_path / "run"))
    capsys.readouterr()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        scoring.main(scoring.Config(run=tmp_path / "run", views=1, out=tmp_path / "file" / "scores.json"))
    assert "test_psnr" in json.loads(capsys.readouterr().out)["metrics"]
