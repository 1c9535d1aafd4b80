import numpy as np
import pytest
import torch
from PIL import Image

from harness import cli
from harness.errors import UserError
from harness.options import parse
from nerf import render
from nerf.config import Config as Training
from nerf.data.load import load_scene
from nerf.field.volume import Rendered
from nerf.output import pictures as module
from nerf.output.pictures import film
from nerf.output.video import GAP
from nerf.render import Config, compared_views
from nerf.scene.lens import pinhole
from nerf.scene.rays import scene_rays
from tests.nerf.commands import start
from tests.nerf.output.film_files import read_mp4


@pytest.fixture(scope="module")
def runs(tmp_path_factory, own_cache):
    """Folders of two runs of two steps each, by DFA and by BP."""
    folders = [tmp_path_factory.mktemp("runs") / method for method in ("dfa", "bp")]
    for folder in folders:
        arguments = ["--preset", "debug_dfa", "--steps", "2", "--device", "cpu", "--out", str(folder)]
        if folder.name == "bp":
            arguments[1] = "small_bp"
            arguments += ["--size", "20", "--depth", "2", "--width", "16", "--rays", "32", "--test-views", "1"]
            arguments += ["--samples-coarse", "8", "--samples-fine", "8"]
        start(parse(Training, arguments))
    return folders


def command(*arguments):
    with pytest.raises(SystemExit) as done:
        cli.run(Config, render.render, [str(argument) for argument in arguments])
    return done.value.code


def test_the_command_writes_a_film_and_views_beside_the_truth(runs, tmp_path, capsys):
    assert command(*runs, "--out", tmp_path, "--frames", 3, "--size", 10, "--views", 2, "--device", "cpu") == 0
    assert "views.png, film.mp4, film.gif" in capsys.readouterr().out
    width = 4 * 10 + 3 * GAP  # colour and depth by two runs
    assert len(read_mp4(tmp_path / "film.mp4", height=10, width=width)[0]) == 3
    with Image.open(tmp_path / "film.gif") as image:
        assert (image.size, image.n_frames) == ((width, 10), 3)
    with Image.open(tmp_path / "views.png") as image:
        pixels = np.asarray(image)
    assert pixels.shape[1] == 3 * 100 + 2 * GAP  # 20 pixels, each five times
    truth = load_scene("synthetic", None, None, size=20).test.images
    shown = pixels[16 : 16 + 100 : 5, 0:100:5]
    np.testing.assert_allclose(shown / 255, truth[0].numpy(), atol=0.5 / 255 + 1e-6)
    shown = pixels[116 + 16 :: 5, 0:100:5]
    np.testing.assert_allclose(shown / 255, truth[6].numpy(), atol=0.5 / 255 + 1e-6)


class Oracle(torch.nn.Module):
    """Sees the procedural scene as it is."""


def exactly(fields, rays, *, chunk, processes=None):
    from nerf.data.solids import trace

    colour, alpha, distance = trace(rays)
    return Rendered(colour, torch.where(alpha > 0, distance, 0.0), alpha, colour)


def test_a_film_follows_the_path_with_one_scale_of_depth(monkeypatch):
    monkeypatch.setattr(module, "render_view", exactly)
    scene = load_scene("synthetic", None, None, size=20)
    pictures = film([Oracle()], scene, frames=4, width=16, chunk=64)
    assert [tuple(picture.shape) for picture in pictures] == [(16, 16 + GAP + 16, 3)] * 4
    depths = []
    for index, picture in zip((0, 30, 60, 90), pictures, strict=True):
        rays = scene_rays(scene, scene.path[index], 16, 16, pinhole(16, 16, float(scene.test.focal[0, 0]) * 16 / 20))
        seen = exactly(None, rays, chunk=0)
        torch.testing.assert_close(picture[:, :16], seen.colour.reshape(16, 16, 3))
        right = picture[:, 16 + GAP :].reshape(-1, 3)
        assert torch.equal((right == 1).all(dim=1), seen.opacity == 0)
        depths.append((seen.depth[seen.opacity > 0], right.mean(dim=1)[seen.opacity > 0]))
    depth, brightness = torch.cat([d for d, _ in depths]), torch.cat([b for _, b in depths])
    assert bool((brightness[depth.argsort()].diff() <= 1e-6).all())
    yellow, violet = (0.993248, 0.906157, 0.143936), (0.267004, 0.004874, 0.329415)  # the ends of viridis
    assert brightness.max().item() == pytest.approx(sum(yellow) / 3, abs=1e-3)
    assert brightness.min().item() == pytest.approx(sum(violet) / 3, abs=1e-3)


def test_captions_tell_the_psnr_of_each_view(monkeypatch):
    def too_dark(fields, rays, *, chunk, processes):
        seen = exactly(fields, rays, chunk=chunk, processes=processes)
        return seen._replace(colour=torch.zeros_like(seen.colour))

    scene = load_scene("synthetic", None, None, size=20)
    monkeypatch.setattr(module, "render_view", too_dark)
    rows = compared_views({"dfa": Oracle()}, scene, 3, chunk=64)
    assert [next(iter(row)) for row in rows] == ["r_0", "r_4", "r_8"]
    decibels = -10 * np.log10((scene.test.images[4].numpy() ** 2).mean())
    assert list(rows[1])[1] == f"dfa {decibels:.1f} dB"


def test_runs_of_one_method_are_told_apart_by_folder_and_then_by_number(tmp_path):
    folders = [tmp_path / "a" / "one", tmp_path / "b" / "two", tmp_path / "c" / "two"]
    assert render._captions(["bp", "dfa"], folders[:2]) == ["bp", "dfa"]
    assert render._captions(["dfa", "dfa"], folders[:2]) == ["one", "two"]
    assert render._captions(["dfa"] * 3, folders) == ["one 1", "two 2", "two 3"]


def test_mistakes_are_named(runs, tmp_path, capsys):
    assert command(tmp_path / "nowhere", "--out", tmp_path / "out") == 2
    assert "nowhere/config.yaml cannot be read" in capsys.readouterr().err
    assert command(runs[0], "--out", tmp_path / "out", "--frames", 1000) == 2
    assert "--frames 1000: the way around a scene has 120 poses" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    settings = (runs[0] / "config.yaml").read_text().replace("scene: solids", "scene: lego")
    (tmp_path / "other" / "config.yaml").write_text(settings)
    assert command(runs[0], tmp_path / "other", "--out", tmp_path / "out") == 2
    assert "several scenes (synthetic/lego, synthetic/solids)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="no run to render"):
        Config(runs=(), out=tmp_path)


def test_what_excludes_each_other_is_refused_before_any_work(runs, tmp_path, capsys):
    with pytest.raises(UserError, match="--rate 60: a GIF shows at most 50"):
        Config(runs=tuple(runs), out=tmp_path, rate=60)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--out .*file is a file"):
        Config(runs=tuple(runs), out=tmp_path / "file")
    settings = (runs[0] / "config.yaml").read_text()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.yaml").write_text(settings.replace("far: null", "far: 9.0"))
    (tmp_path / "other" / "checkpoint.pt").write_bytes((runs[0] / "checkpoint.pt").read_bytes())
    assert command(runs[0], tmp_path / "other", "--out", tmp_path / "out") == 2
    assert "these runs differ in --near, --far or --background" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_of_another_network_is_named(runs, tmp_path, capsys):
    (tmp_path / "config.yaml").write_text((runs[0] / "config.yaml").read_text().replace("width: 32", "width: 33"))
    (tmp_path / "checkpoint.pt").write_bytes((runs[0] / "checkpoint.pt").read_bytes())
    assert command(tmp_path, "--out", tmp_path / "out") == 2
    message = capsys.readouterr().err
    assert "config.yaml and the checkpoint beside it do not match" in message
    assert message.count("\n") == 1
