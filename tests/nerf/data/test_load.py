"""Scenes by name: where they are looked for, and archives they are unpacked from."""

import hashlib
import zipfile
from dataclasses import replace

import pytest
import torch

from harness.errors import UserError
from nerf.data import archives
from nerf.data.archives import ARCHIVES
from nerf.data.images import area_average
from nerf.data.load import load_scene
from tests.nerf.data.scene_files import write_blender

PICTURE = [[[255, 0, 0, 255], [0, 255, 0, 0]]]


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """A data root without anything in it, a cache of its own, and no network."""
    monkeypatch.setenv("TINYDFA_CACHE", str(tmp_path / "cache"))
    for name, file in ARCHIVES.items():
        monkeypatch.setitem(ARCHIVES, name, replace(file, urls=()))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def archive(empty, tmp_path, monkeypatch):
    """The published archive below the data root, with two scenes of 2 x 1 pixels."""
    path = empty / "nerf_synthetic.zip"
    with zipfile.ZipFile(path, "w") as content:
        for scene in ("lego", "ship"):
            folder = write_blender(tmp_path / "made" / scene, [PICTURE] * 3, [PICTURE])
            for file in sorted(folder.rglob("*.*")):
                content.write(file, f"nerf_synthetic/{scene}/{file.relative_to(folder)}")
        content.writestr("nerf_synthetic/lego/../../escaped.txt", "no")
        content.writestr("__MACOSX/nerf_synthetic/lego/._r_0.png", "no")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(ARCHIVES, "nerf_synthetic", replace(ARCHIVES["nerf_synthetic"], sha256=digest))
    return path


def test_the_embedded_scene_has_sixty_views_to_train_on_and_twelve_to_test():
    scene = load_scene("synthetic", None, None)
    assert scene.train.images.shape == (60, 100, 100, 3)
    assert scene.test.images.shape == (12, 100, 100, 3)
    assert (scene.name, scene.white_background, scene.ndc) == ("solids", True, False)


def test_the_first_published_scene_is_the_default(archive):
    assert load_scene("blender", None, archive.parent).name == "lego"


def test_a_scene_is_unpacked_from_its_archive_alone_and_once(archive, tmp_path, monkeypatch):
    scene = load_scene("blender", "ship", archive.parent)
    assert (scene.name, len(scene.train)) == ("ship", 3)
    store = tmp_path / "cache" / "data" / "nerf_synthetic"
    assert [path.name for path in store.iterdir() if path.is_dir()] == ["ship"]
    assert sorted(path.name for path in archive.parent.iterdir()) == ["nerf_synthetic.zip"]
    monkeypatch.setattr(archives, "_unpack", lambda *a: pytest.fail("unpacked a scene that was there"))
    assert torch.equal(load_scene("blender", "ship", archive.parent).train.images, scene.train.images)


def test_an_archive_writes_nothing_outside_the_scene(archive, tmp_path):
    load_scene("blender", "lego", archive.parent)
    assert not list(tmp_path.rglob("escaped.txt"))
    assert not list(tmp_path.rglob("._r_0.png"))


def test_an_archive_of_another_content_is_refused(archive):
    archive.write_bytes(archive.read_bytes() + b"more")
    with pytest.raises(UserError, match=r"nerf_synthetic\.zip is not the published file"):
        load_scene("blender", "lego", archive.parent)


def test_a_broken_archive_is_named_and_leaves_nothing(archive, tmp_path, monkeypatch):
    archive.write_bytes(b"no archive")
    digest = hashlib.sha256(b"no archive").hexdigest()
    monkeypatch.setitem(ARCHIVES, "nerf_synthetic", replace(ARCHIVES["nerf_synthetic"], sha256=digest))
    with pytest.raises(UserError, match=r"nerf_synthetic\.zip is not a whole archive"):
        load_scene("blender", "lego", archive.parent)
    assert not [path for path in (tmp_path / "cache" / "data" / "nerf_synthetic").iterdir() if path.is_dir()]


def test_a_scene_that_is_nowhere_says_where_it_was_looked_for_and_what_needs_nothing(empty):
    with pytest.raises(UserError, match=r"scene lego \(looked for .*nerf_synthetic/lego.*--dataset synthetic"):
        load_scene("blender", "lego", empty)
    with pytest.raises(UserError, match=r"scene fern .*nerf_llff/fern.*nerf_llff_data\.zip"):
        load_scene("llff", "fern", empty)


def test_an_unpublished_scene_is_only_looked_for_in_folders(empty):
    with pytest.raises(UserError, match=r"--scene mine: looked for .*chair, drums.*--dataset synthetic"):
        load_scene("blender", "mine", empty)
    write_blender(empty / "nerf_synthetic" / "mine", [PICTURE], [PICTURE])
    assert load_scene("blender", "mine", empty).name == "mine"


@pytest.mark.parametrize("name", ["../lego", "a/b", ".."])
def test_a_scene_is_the_name_of_a_folder(name, empty):
    with pytest.raises(UserError, match="give the name of a folder"):
        load_scene("blender", name, empty)


def test_unknown_names_are_errors_that_list_the_known_ones():
    with pytest.raises(UserError, match=r"--dataset blendr: .*synthetic, blender, llff"):
        load_scene("blendr", None, None)
    with pytest.raises(UserError, match="--scene lego: the synthetic data set has one scene, solids"):
        load_scene("synthetic", "lego", None)
    with pytest.raises(UserError, match="--size 0: give at least 1"):
        load_scene("synthetic", None, None, size=0)


def test_areas_that_cut_pixels_count_them_in_part():
    line = torch.tensor([1.0, 10.0, 100.0])[None, :, None]
    expected = torch.tensor([(1 + 0.5 * 10) / 1.5, (0.5 * 10 + 100) / 1.5])
    torch.testing.assert_close(area_average(line, 1, 2)[0, :, 0], expected)
    torch.testing.assert_close(area_average(line.transpose(0, 1), 2, 1)[:, 0, 0], expected)


def test_averaging_keeps_the_mean_and_whole_blocks_are_their_means():
    picture = torch.rand(12, 20, 3, generator=torch.Generator().manual_seed(0))
    for height, width in ((12, 20), (6, 10), (5, 7), (1, 1)):
        small = area_average(picture, height, width)
        torch.testing.assert_close(small.mean(dim=(0, 1)), picture.mean(dim=(0, 1)))
    blocks = picture.reshape(3, 4, 5, 4, 3).mean(dim=(1, 3))
    torch.testing.assert_close(area_average(picture, 3, 5), blocks)
