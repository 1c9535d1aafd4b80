import imageio.v3 as iio
import numpy as np
import pytest
import torch
from PIL import Image

from harness.errors import UserError
from nerf.output.video import CAPTION, GAP, beside, colour_depth, to_bytes, write_film, write_strip
from tests.nerf.output.film_files import read_mp4


def ramp(count=5, height=16, width=20):
    """Pictures of one grey each, from black to white."""
    return [torch.full((height, width, 3), k / (count - 1)) for k in range(count)]


def test_near_is_bright_far_is_dark_and_beyond_them_is_like_them():
    colours = colour_depth(torch.tensor([[1.0, 2.0, 4.0, 6.0, 9.0]]), near=2.0, far=6.0)
    brightness = colours.mean(dim=-1)[0]
    assert colours.shape == (1, 5, 3)
    assert bool((brightness[1:4].diff() < 0).all())
    assert torch.equal(colours[0, 0], colours[0, 1])
    assert torch.equal(colours[0, 3], colours[0, 4])


def test_where_nothing_is_depth_is_white():
    depth = torch.tensor([[2.0, 2.0, 2.0]])
    none, half, full = colour_depth(depth, 2.0, 6.0, torch.tensor([[0.0, 0.5, 1.0]]))[0]
    assert none.tolist() == [1.0, 1.0, 1.0]
    torch.testing.assert_close(half, (1 + full) / 2)
    torch.testing.assert_close(full, colour_depth(depth, 2.0, 6.0)[0, 0])


def test_pictures_stand_beside_each_other_with_white_between():
    left, right = torch.zeros(2, 3, 3), torch.full((2, 4, 3), 0.5)
    both = beside([left, right])
    assert both.shape == (2, 3 + GAP + 4, 3)
    assert torch.equal(both[:, :3], left)
    assert torch.equal(both[:, 3 + GAP :], right)
    assert bool((both[:, 3 : 3 + GAP] == 1).all())


def test_a_strip_shows_its_pictures_enlarged_below_their_captions(tmp_path):
    truth, other = torch.rand(6, 40, 3), torch.rand(6, 40, 3)
    write_strip(tmp_path / "new" / "strip.png", [{"truth": truth, "DFA": other}, {"truth": other}], scale=2)
    with Image.open(tmp_path / "new" / "strip.png") as image:
        pixels = np.asarray(image)
    assert pixels.shape == (2 * (CAPTION + 12), 80 + GAP + 80, 3)
    np.testing.assert_array_equal(pixels[CAPTION : CAPTION + 12 : 2, 0:80:2], to_bytes(truth))
    np.testing.assert_array_equal(pixels[CAPTION + 1 : CAPTION + 12 : 2, 80 + GAP + 1 :: 2], to_bytes(other))
    np.testing.assert_array_equal(pixels[2 * CAPTION + 12 :: 2, 0:80:2], to_bytes(other))
    assert pixels[:CAPTION, :80].min() < 100  # there is something written
    assert bool((pixels[CAPTION + 12 :, 80:] == 255).all())


def test_an_mp4_has_its_pictures_also_at_odd_sizes(tmp_path):
    write_film(tmp_path / "film.mp4", ramp(5, height=17, width=21), rate=10)
    frames, rate = read_mp4(tmp_path / "film.mp4", height=18, width=22)
    assert (len(frames), rate) == (5, 10)
    assert frames[0, 17, :20].min() > 200  # the new row is white
    assert frames[0, 16, :20].max() < 60
    for k, frame in enumerate(frames):
        assert abs(frame[2:14, 2:18].mean() - 255 * k / 4) < 4


def test_a_gif_has_its_pictures_and_repeats_for_ever(tmp_path):
    write_film(tmp_path / "film.gif", ramp(), rate=10)
    with Image.open(tmp_path / "film.gif") as image:
        assert (image.n_frames, image.size, image.info["loop"], image.info["duration"]) == (5, (20, 16), 0, 100)
        image.seek(4)
        assert image.convert("RGB").getpixel((3, 3)) == (255, 255, 255)


@pytest.mark.parametrize("rate", [1, 7, 24, 30, 33, 50])
def test_a_gif_lasts_as_long_as_its_rate_says(rate, tmp_path):
    """To half a hundredth of a second, the unit of the format, and no picture of it is left out."""
    count = 61
    write_film(tmp_path / "film.gif", ramp(count, height=4, width=6), rate)
    with Image.open(tmp_path / "film.gif") as image:
        lasting = []
        for number in range(image.n_frames):
            image.seek(number)
            lasting.append(image.info["duration"])
    assert len(lasting) == count
    assert sum(lasting) == pytest.approx(1000 * count / rate, abs=5)
    assert max(lasting) - min(lasting) <= 10
    assert min(lasting) >= 20


def test_pictures_that_are_alike_last_as_long_as_others(tmp_path):
    write_film(tmp_path / "film.gif", [ramp()[0]] * 9 + [ramp()[4]], rate=30)
    with Image.open(tmp_path / "film.gif") as image:
        lasting = []
        for number in range(image.n_frames):
            image.seek(number)
            lasting.append(image.info["duration"])
    assert sum(lasting) == pytest.approx(1000 * 10 / 30, abs=5)


@pytest.mark.parametrize("rate", [1, 7, 30, 60])
def test_an_mp4_lasts_as_long_as_its_rate_says(rate, tmp_path):
    write_film(tmp_path / "film.mp4", ramp(9), rate)
    frames, found = read_mp4(tmp_path / "film.mp4", height=16, width=20)
    assert len(frames) / found == pytest.approx(9 / rate, rel=1e-3)


def test_a_rate_that_a_gif_does_not_have_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"film\.gif: 60 pictures a second are too many for a GIF. Give at most 50"):
        write_film(tmp_path / "film.gif", ramp(), 60)
    assert not list(tmp_path.iterdir())


def test_an_mp4_of_which_a_part_was_not_written_is_an_error_and_leaves_nothing(tmp_path, monkeypatch):
    whole = iio.imwrite

    def cut(path, frames, **options):
        whole(path, frames[:2], **options)

    monkeypatch.setattr(iio, "imwrite", cut)
    with pytest.raises(UserError, match="2 of 5 pictures were written"):
        write_film(tmp_path / "film.mp4", ramp())
    assert not list(tmp_path.iterdir())


def test_another_kind_of_film_is_an_error_that_names_the_kinds(tmp_path):
    with pytest.raises(UserError, match=r"film\.avi: films are written as \.mp4 or \.gif"):
        write_film(tmp_path / "film.avi", ramp())


@pytest.mark.parametrize("name", ["film.gif", "film.mp4"])
def test_what_cannot_be_written_is_an_error_and_leaves_nothing(name, tmp_path):
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=f"cannot write .*{name.replace('.', '[.]')}"):
        write_film(tmp_path / name, ramp())
    with pytest.raises(UserError, match="cannot write"):
        write_strip(tmp_path / name, [{"a": ramp()[0]}])
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert not list((tmp_path / name).iterdir())


def test_a_film_that_breaks_off_leaves_the_old_one(tmp_path, monkeypatch):
    write_film(tmp_path / "film.gif", ramp())
    before = (tmp_path / "film.gif").read_bytes()

    def breaks(path, *rest, **options):
        path.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(iio, "imwrite", breaks)
    with pytest.raises(UserError, match="no space left"):
        write_film(tmp_path / "film.gif", ramp(3))
    assert [path.name for path in tmp_path.iterdir()] == ["film.gif"]
    assert (tmp_path / "film.gif").read_bytes() == before
