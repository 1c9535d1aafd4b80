"""Validation views: what settings are chosen by is neither trained on nor tested."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.errors import UserError
from harness.options import make
from nerf import train
from nerf.config import Config
from nerf.data.blender import read_blender
from nerf.data.load import load_scene
from nerf.scene.views import held_out
from tests.nerf.data.scene_files import IDENTITY, llff_row, write_blender, write_image, write_llff

SMALL = {"preset": "debug_dfa", "steps": 3, "width": 8, "rays": 8, "samples_coarse": 4, "samples_fine": 4}


def picture(shade):
    return np.full((4, 4, 3), shade)


def add_validation(folder, shades, split="val"):
    """Validation views of one shade each, in the folder `split`."""
    for index, shade in enumerate(shades):
        write_image(folder / split / f"r_{index}.png", picture(shade))
    frames = [{"file_path": f"./{split}/r_{index}", "transform_matrix": IDENTITY} for index in range(len(shades))]
    (folder / "transforms_val.json").write_text(json.dumps({"camera_angle_x": 1.5, "frames": frames}))


@pytest.fixture
def root(tmp_path):
    """A data root with "mine" in both formats: 6 training and 2 test views, 17 training and 3 test views."""
    blender = [picture(10 * k) for k in range(8)]
    write_blender(tmp_path / "nerf_synthetic" / "mine", blender[:6], blender[6:])
    rows = np.stack([llff_row(*np.eye(3), [k, 0, 0], depths=(2.0, 10.0)) for k in range(20)])
    write_llff(tmp_path / "nerf_llff" / "mine", rows, [np.full((6, 8, 3), 9 * k) for k in range(20)])
    return tmp_path


def shades(views):
    return (views.images[:, 0, 0, 0] * 255).round().int().tolist()


def test_without_views_of_its_own_a_scene_holds_out_training_views_and_keeps_its_test_views(root):
    whole = load_scene("llff", "mine", root)
    scene = load_scene("llff", "mine", root, val_views=4)
    assert whole.val is None
    assert (len(whole.train), len(scene.train), len(scene.val)) == (17, 13, 4)
    assert scene.val.names == ("image003", "image007", "image012", "image017")  # 2, 6, 10 and 14 of the 17
    assert sorted(scene.train.names + scene.val.names) == sorted(whole.train.names)
    assert scene.train.names[0] == whole.train.names[0]
    assert scene.test.names == whole.test.names
    for views in (scene.train, scene.val):  # pictures and cameras go with their names
        numbers = [int(name.removeprefix("image")) for name in views.names]
        assert shades(views) == [9 * number for number in numbers]
        steps = torch.tensor(numbers).diff() * (1 / 0.75) / 2.0
        torch.testing.assert_close(views.poses[:, 0, 3].diff(), steps)


def test_lenses_go_with_the_views_that_are_held_out(root):
    scene = load_scene("blender", "mine", root)
    focal = torch.arange(6, dtype=torch.float64)[:, None].expand(6, 2)
    lens = replace(scene.train.lens, focal=focal, centre=focal, distortion=torch.zeros(6, 5, dtype=torch.float64))
    scene = held_out(replace(scene, train=replace(scene.train, lens=lens)), 3)
    assert (scene.val.focal[:, 0].tolist(), scene.train.focal[:, 0].tolist()) == ([1, 3, 5], [0, 2, 4])


def test_a_scene_with_validation_views_of_its_own_gives_those_and_trains_on_all_others(root):
    add_validation(root / "nerf_synthetic" / "mine", [200, 210, 220])
    scene = load_scene("blender", "mine", root, val_views=2)
    assert shades(scene.val) == [200, 210, 220]
    assert (shades(scene.train), shades(scene.test)) == ([0, 10, 20, 30, 40, 50], [60, 70])


def test_validation_views_are_read_by_those_who_ask_alone(root):
    folder = root / "nerf_synthetic" / "mine"
    add_validation(folder, [200])
    shutil.rmtree(folder / "val")
    assert load_scene("blender", "mine", root).val is None
    with pytest.raises(UserError, match=r"val/r_0\.png"):
        load_scene("blender", "mine", root, val_views=1)


def test_validation_views_that_are_tested_for_want_of_others_choose_nothing(root, capsys):
    folder = root / "nerf_synthetic" / "mine"
    (folder / "transforms_test.json").unlink()
    add_validation(folder, [200, 210])
    scene = load_scene("blender", "mine", root, val_views=2)
    assert shades(scene.test) == [200, 210]
    assert (shades(scene.val), shades(scene.train)) == ([10, 40], [0, 20, 30, 50])
    assert "the views of" in capsys.readouterr().err


@pytest.mark.parametrize(("split", "use"), [("train", "training"), ("test", "testing")])
def test_a_validation_view_with_another_use_is_refused(split, use, root):
    add_validation(root / "nerf_synthetic" / "mine", [5], split)
    message = rf"transforms_val\.json: r_0\.png is for {use} as well.* leave out --val-views"
    with pytest.raises(UserError, match=message):
        load_scene("blender", "mine", root, val_views=1)
    assert load_scene("blender", "mine", root).val is None


def test_the_box_of_a_scene_holds_what_validation_cameras_see(tmp_path):
    far_away = np.eye(4)
    far_away[0, 3] = 50.0
    folder = write_blender(tmp_path / "toy", [picture(1)] * 2, [picture(2)])
    add_validation(folder, [3])
    content = json.loads((folder / "transforms_val.json").read_text())
    content["frames"][0]["transform_matrix"] = far_away.tolist()
    (folder / "transforms_val.json").write_text(json.dumps(content))
    for name in ("train", "test"):  # a range of its own, so that the box is that of the rays
        path = folder / f"transforms_{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"near": 1.0, "far": 7.0}))
    assert read_blender(folder).bounds[1, 0] < 20
    assert read_blender(folder, validation=True).bounds[1, 0] > 50


def test_no_more_than_half_of_the_training_views_are_held_out(root):
    assert len(load_scene("blender", "mine", root, val_views=3).train) == 3
    with pytest.raises(UserError, match=r"--val-views 4: mine has no validation views .* its 6 training views .* 3 or"):
        load_scene("blender", "mine", root, val_views=4)


def test_a_run_scores_validation_views_apart_and_neither_trains_on_them_nor_tests_them(root):
    add_validation(root / "nerf_synthetic" / "mine", [200, 210, 220])
    place = {"dataset": "blender", "scene": "mine", "data_dir": root, "size": 4}
    plain = train.train(make(Config, **SMALL, **place))
    config = make(Config, **SMALL, **place, val_views=2)
    scene = train.load(config)
    seen = train.train(config, scene=scene)
    brighter = replace(scene, val=replace(scene.val, images=torch.ones_like(scene.val.images)))
    other = train.train(config, scene=brighter)
    assert not any(name.startswith("val") for name in (*plain["metrics"], *plain["curves"]))
    assert [view["view"] for view in seen["curves"]["val_views"]] == ["r_0", "r_1"]
    assert seen["metrics"]["val_psnr"] != other["metrics"]["val_psnr"]
    for name in ("test_psnr", "train_psnr"):
        assert plain["metrics"][name] == seen["metrics"][name] == other["metrics"][name]


def test_what_is_held_out_is_not_trained_on(root):
    config = make(Config, **SMALL, dataset="llff", scene="mine", data_dir=root, size=4, val_views=4)
    scene = train.load(config)
    _, colours = train.training_rays(scene)
    assert len(colours) == 13 * 4 * 3
    found = set((colours[:, 0] * 255).round().int().tolist())
    assert found.isdisjoint(9 * number for number in (3, 7, 12, 17))
