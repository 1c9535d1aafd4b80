"""Checkpoints of the 2020 release: names, halves of joins, and that the released networks still draw their scenes."""

import json
import math
from dataclasses import replace

import pytest
import torch

from harness.errors import UserError
from nerf import test as scoring
from nerf.field.encoding import encode
from nerf.field.release2020 import load_2020, pixel_offset


def old_state(depth=4, width=16, seed=0):
    """A state dict as the release wrote it, with the position at layer 5."""
    torch.manual_seed(seed)
    sizes = {"layer1": (width, 63)}
    for number in range(depth - 1):
        sizes[f"layers_xyz.{number}"] = (width, width + (63 if number == 4 else 0))
    sizes |= {"fc_alpha": (1, width), "fc_feat": (width, width), "layers_dir.0": (width // 2, width + 27)}
    sizes["fc_rgb"] = (3, width // 2)
    state = {}
    for name, size in sizes.items():
        state[f"{name}.weight"], state[f"{name}.bias"] = torch.randn(size) / size[1] ** 0.5, torch.randn(size[0])
    return state


def write(path, **changes):
    content = {"iter": 7, "psnr": 18.0, "model_coarse_state_dict": old_state(seed=1)}
    torch.save(content | {"model_fine_state_dict": old_state(seed=2)} | changes, path)
    return path


def old_network(w, points, views):
    """The release's network on its own state dict, all inputs of a layer in one tensor."""
    position = encode(points, 10)
    h = torch.relu(position @ w["layer1.weight"].T + w["layer1.bias"])
    for number in range(sum(name.startswith("layers_xyz") for name in w) // 2):
        h = torch.cat([h, position], dim=1) if number == 4 else h
        h = torch.relu(h @ w[f"layers_xyz.{number}.weight"].T + w[f"layers_xyz.{number}.bias"])
    feature = torch.relu(h @ w["fc_feat.weight"].T + w["fc_feat.bias"])
    seen = torch.cat([feature, encode(views, 4)], dim=1) @ w["layers_dir.0.weight"].T + w["layers_dir.0.bias"]
    colour = torch.relu(seen) @ w["fc_rgb.weight"].T + w["fc_rgb.bias"]
    return torch.cat([colour, h @ w["fc_alpha.weight"].T + w["fc_alpha.bias"]], dim=1)


@pytest.mark.parametrize("depth", [4, 8])
def test_a_loaded_network_computes_what_the_released_one_did(depth, tmp_path):
    states = [old_state(depth, seed=seed) for seed in (1, 2)]
    changes = {"model_coarse_state_dict": states[0], "model_fine_state_dict": states[1]}
    fields = load_2020(write(tmp_path / "old.ckpt", **changes), white_background=True)
    points, views = torch.randn(5, 3), torch.nn.functional.normalize(torch.randn(5, 3), dim=1)
    for network, state in zip(fields.networks().values(), states, strict=True):
        torch.testing.assert_close(network(points, views), old_network(state, points, views))


def test_a_pixel_of_a_reduced_picture_is_met_in_the_middle_of_the_pixels_it_stands_for():
    assert pixel_offset(800, ndc=False) == 0.0
    corners = torch.arange(800.0).reshape(50, 16)  # where rays start in a row of 800, by the pixel of 50 they are in
    assert 7 + pixel_offset(50, ndc=False) == pytest.approx(corners[7].mean().item() / 16)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_fine_state_dict": None}, "no model_fine_state_dict"),
        ({"model_coarse_state_dict": {"layer1.weight": torch.zeros(4, 63)}}, "no usable 'layers_dir.0.weight'"),
        ({"model_fine_state_dict": old_state(width=8)}, "size mismatch"),
    ],
)
def test_another_file_is_refused_with_the_reason(changes, message, tmp_path):
    with pytest.raises(UserError, match=f"old.ckpt is no checkpoint of the 2020 release: .*{message}"):
        load_2020(write(tmp_path / "old.ckpt", **changes), white_background=True)


def test_no_code_in_a_file_is_run(tmp_path):
    path = tmp_path / "evil.ckpt"
    torch.save({"model_coarse_state_dict": math.sqrt}, path)
    with pytest.raises(UserError, match=r"evil\.ckpt cannot be read"):
        load_2020(path, white_background=True)
    path.write_text("no checkpoint")
    with pytest.raises(UserError, match=r"evil\.ckpt cannot be read"):
        load_2020(path, white_background=True)


def scores(data_dir, name, **options):
    path = data_dir / "nerf_2020_checkpoints" / name
    if not path.is_file():
        pytest.skip(f"{path} is not there: it is one of the networks released with arXiv 2006.12878")
    config = scoring.Config(checkpoint_2020=path, data_dir=data_dir, precision="fp32", **options)
    return scoring.test(config)


@pytest.mark.data
def test_the_released_lego_is_drawn_as_it_was(data_dir):
    found = scores(data_dir, "synth_lego_dfa.ckpt", dataset="blender", scene="lego", size=25, views=2)
    assert 22 < found["metrics"]["test_psnr"] < 28


@pytest.mark.data
def test_the_released_fern_is_drawn_as_it_was(data_dir):
    found = scores(data_dir, "real_fern_dfa.ckpt", dataset="llff", scene="fern", size=36, views=1)
    assert 19 < found["metrics"]["test_psnr"] < 26


def test_the_command_wants_one_thing(tmp_path):
    with pytest.raises(UserError, match="give the folder of a run, or --checkpoint-2020"):
        scoring.Config()
    with pytest.raises(UserError, match="give the folder of a run, or --checkpoint-2020"):
        scoring.Config(run=tmp_path, checkpoint_2020=tmp_path)


def test_the_command_prints_json(tmp_path, capsys):
    config = scoring.Config(checkpoint_2020=write(tmp_path / "old.ckpt"), dataset="synthetic", size=4, views=1)
    scoring.main(replace(config, out=tmp_path / "scores.json"))
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "scores.json").read_text())
    assert len(printed["views"]) == 1
    assert printed["metrics"]["test_psnr"] == printed["views"][0]["psnr"]
