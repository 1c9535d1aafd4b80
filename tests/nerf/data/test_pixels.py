"""Picture files of every depth of colour: what is read is what was drawn, or is refused by name."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from harness.errors import UserError
from nerf.data.images import has_white_background, read_images
from nerf.data.pixels import read_header, read_pixels

SHADES = [0.0, 0.25, 0.5, 1.0]


def saved(path, image, **options):
    image.save(path, **options)
    return path


def row(path, background=1.0):
    """The colours of a picture's first row."""
    return read_pixels(path, background)[0]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_grey_of_16_bits_keeps_its_shades(suffix, tmp_path):
    pixels = np.array([[0, 16384, 32768, 65535]], np.uint16)
    found = row(saved(tmp_path / f"a.{suffix}", Image.fromarray(pixels)))
    torch.testing.assert_close(found, torch.tensor(SHADES)[:, None].expand(4, 3), atol=1e-4, rtol=0)


def test_grey_of_16_bits_in_the_byte_order_of_other_processors_keeps_its_shades(tmp_path):
    pixels = np.array([[0, 16384, 32768, 65535]], np.uint16)
    header = b"MM\x00*\x00\x00\x00\x10" + pixels.astype(">u2").tobytes()  # the first directory is at 16
    tags = [(256, 4, 4), (257, 4, 1), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 8), (278, 4, 1), (279, 4, 8)]
    entries = b"".join(
        tag.to_bytes(2) + kind.to_bytes(2) + (1).to_bytes(4) + (value << (16 if kind == 3 else 0)).to_bytes(4)
        for tag, kind, value in tags
    )
    (tmp_path / "a.tif").write_bytes(header + len(tags).to_bytes(2) + entries + bytes(4))
    found = row(tmp_path / "a.tif")
    torch.testing.assert_close(found, torch.tensor(SHADES)[:, None].expand(4, 3), atol=1e-4, rtol=0)


def test_colours_are_the_same_in_every_way_to_store_them(tmp_path):
    colours = Image.new("RGB", (4, 2), (255, 0, 51))
    expected = torch.tensor([[1.0, 0.0, 0.2]]).expand(4, 3)
    for name in ("a.png", "a.bmp", "a.tif", "b.tiff"):
        torch.testing.assert_close(row(saved(tmp_path / name, colours)), expected)
    torch.testing.assert_close(row(saved(tmp_path / "a.webp", colours, lossless=True)), expected)
    torch.testing.assert_close(row(saved(tmp_path / "p.png", colours.quantize(8))), expected)
    torch.testing.assert_close(row(saved(tmp_path / "a.jpg", colours, quality=100)), expected, atol=0.02, rtol=0)
    torch.testing.assert_close(row(saved(tmp_path / "1.png", Image.new("1", (4, 2), 1))), torch.ones(4, 3))
    torch.testing.assert_close(row(saved(tmp_path / "L.png", Image.new("L", (4, 2), 51))), torch.full((4, 3), 0.2))


@pytest.mark.parametrize("background", [0.0, 1.0])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_shows_the_background(mode, background, tmp_path):
    picture = Image.new("RGBA", (2, 1), (51, 51, 51, 255))
    picture.putpixel((1, 0), (200, 200, 200, 0))
    if mode == "P":
        indexed = Image.new("P", (2, 1), 0)
        indexed.putpalette([51, 51, 51, 200, 200, 200])
        indexed.putpixel((1, 0), 1)
        path = saved(tmp_path / "a.png", indexed, transparency=1)
    else:
        path = saved(tmp_path / "a.png", picture.convert(mode))
    assert read_header(path) == (1, 2, True)
    torch.testing.assert_close(row(path, background), torch.tensor([[0.2] * 3, [background] * 3]))


def pages(count):
    content = io.BytesIO()
    first, *rest = [Image.new("RGB", (2, 2), (90 * k, 0, 0)) for k in range(count)]
    first.save(content, "TIFF", save_all=True, append_images=rest)
    return content.getvalue()


REFUSED = {
    "float": (lambda p: Image.fromarray(np.ones((2, 2), np.float32)).save(p, "TIFF"), "holds floating-point numbers"),
    "int32": (lambda p: Image.fromarray(np.ones((2, 2), np.int32)).save(p, "TIFF"), "holds whole numbers of 32 bits"),
    "pages": (lambda p: p.write_bytes(pages(2)), "holds 2 pictures"),
    "film": (
        lambda p: Image.new("L", (2, 2)).save(p, "GIF", save_all=True, append_images=[Image.new("L", (2, 2), 9)]),
        "holds 2 pictures",
    ),
    "no picture": (lambda p: p.write_bytes(b"II*\x00" + bytes(20)), "cannot be read as a picture"),
    "nothing": (lambda p: p.write_bytes(b""), "cannot be read as a picture"),
    "folder": (lambda p: p.mkdir(), "no such file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_pictures_are_refused_by_name(case, tmp_path):
    write, message = REFUSED[case]
    write(tmp_path / "a.tif")
    with pytest.raises(UserError, match=rf"a\.tif.* ?{message}") as caught:
        read_images([tmp_path / "a.tif"])
    assert "\n" not in str(caught.value)


def test_a_header_that_claims_more_than_memory_is_refused_before_any_is_used(tmp_path):
    Image.new("L", (2, 2)).save(tmp_path / "a.bmp")
    content = bytearray((tmp_path / "a.bmp").read_bytes())
    content[18:26] = (30_000).to_bytes(4, "little") * 2
    (tmp_path / "a.bmp").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.bmp (says that it is 30000x30000|cannot be read)"):
        read_images([tmp_path / "a.bmp"])


def test_the_background_is_white_with_alpha_black_without_and_asked_for_where_both_are(tmp_path):
    clear = saved(tmp_path / "clear.png", Image.new("RGBA", (2, 2)))
    opaque = saved(tmp_path / "opaque.png", Image.new("RGB", (2, 2)))
    assert has_white_background([clear, clear], None)
    assert not has_white_background([opaque, opaque], None)
    with pytest.raises(UserError, match=r"clear\.png has an alpha channel and .*opaque\.png has none.*--background"):
        has_white_background([opaque, clear], None)
    assert has_white_background([opaque, clear], "white")
    assert not has_white_background([opaque, clear], "black")
