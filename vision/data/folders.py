"""Images of one's own: a folder with a folder of images for every class.

    photos/train/cat/*.png   photos/test/cat/*.png      with val in place of test, or beside it: held out; also
                                                        called training, testing, valid, validation and dev
    photos/train/dog/*.png   photos/test/dog/*.png
    photos/cat/*.png         photos/dog/*.png           of each class, a fifth is for tests, chosen by a hash of names

Grey images stay grey if all are; else all have three channels. 16-bit grey is scaled to 8 bits, and a photograph is
turned as its camera says. What would have to be guessed is refused: transparent pixels, several pictures in a file,
sizes that differ (`--image-size` crops and scales them).
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from harness.errors import UserError
from harness.files import refuse_unplain, walk
from vision.data.formats import Images

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
LITTER = ("thumbs.db", "desktop.ini")  # left by file managers; names that begin with a dot are ignored, too
TRAIN, VAL, TEST = ("train", "training"), ("val", "valid", "validation", "dev"), ("test", "testing")
OPAQUE = 255
LAYOUT = "Give a folder with a folder of images for every class, or with two such folders, train and test."
Listing = dict[str, list[Path]]  # by class


class OwnImages(NamedTuple):
    """The images of a folder."""

    train: Images
    val: Images | None  # held out; None: the folder has none for that
    test: Images
    classes: tuple[str, ...]  # names, in the order of their ids


def read_folder(folder: Path, size: int | None = None) -> OwnImages:
    """Images of a folder whose layout the module describes.

    Args:
        folder: The folder.
        size: Height and width that images are cropped (around the middle) and scaled to; None: all have one size.

    Raises:
        UserError: the layout is another, or a file is damaged or cannot be read as an image.
    """
    parts = _parts(folder)
    names = sorted(parts[0])
    if len(names) < 2:
        raise UserError(f"--image-dir {folder} has {len(names)} classes. {LAYOUT}")
    for part in filter(None, parts):
        if extra := sorted(set(part) - set(names)):
            raise UserError(f"--image-dir {folder}: no image of {', '.join(extra)} is for training. Add some.")
    wanted = [(path, names.index(name)) for part in parts if part for name in sorted(part) for path in part[name]]
    images = _stacked([_read(path, size) for path, _ in wanted], [path for path, _ in wanted])
    labels = np.array([label for _, label in wanted], np.int64)
    borders = [0, *np.cumsum([sum(map(len, part.values())) for part in parts])]
    splits = [(images[start:end], labels[start:end]) for start, end in pairwise(borders)]
    return OwnImages(splits[0], splits[1] if parts[1] else None, splits[2], tuple(names))


def _parts(folder: Path) -> tuple[Listing, Listing, Listing]:
    """The files for training, for choosing an epoch, and for tests, by class."""
    if not folder.is_dir():
        raise UserError(f"--image-dir {folder}: no such folder. {LAYOUT}")
    found = _folders(folder)
    train, val, test = ([path for path in found if path.name.lower() in names] for names in (TRAIN, VAL, TEST))
    if not train + val + test:
        return _dealt(_classes(folder))
    if len(train) != 1 or max(len(val), len(test)) != 1:
        names = ", ".join(path.name for path in found)
        raise UserError(
            f"--image-dir {folder} has {names}: there should be one to train on and one for tests. {LAYOUT}"
        )
    trained, held_out = _classes(train[0]), _classes((val or test)[0])
    return (trained, held_out, _classes(test[0])) if val and test else (trained, {}, held_out)


def _dealt(classes: Listing) -> tuple[Listing, Listing, Listing]:
    """A fifth of each class, and one image at least, for tests: those whose names have the smallest hashes."""
    train, test = {}, {}
    for name, paths in classes.items():
        if len(paths) < 2:
            raise UserError(
                f"the class {paths[0].parent} has one image, which cannot be trained on and tested. Add some."
            )
        order = sorted(paths, key=lambda path: hashlib.sha256(os.fsencode(path.name)).digest())
        border = max(1, len(order) // 5)
        test[name], train[name] = sorted(order[:border]), sorted(order[border:])
    return train, {}, test


def _classes(folder: Path) -> Listing:
    """The images of every folder in `folder`, by its name."""
    if stray := [path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES and path.is_file()]:
        raise UserError(f"{stray[0]} lies beside the folders of the classes. {LAYOUT}")
    return {path.name: sorted(_images(path)) for path in _folders(folder)}


def _folders(folder: Path) -> list[Path]:
    try:
        return [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror}). Make it readable.") from error


def _images(folder: Path) -> Iterator[Path]:
    """The images of one class, at any depth, also where links lead to."""
    found = False
    for path in walk(folder, "Make it readable"):
        if path.name.lower() in LITTER:
            continue
        if path.suffix.lower() not in SUFFIXES:
            raise UserError(f"{path} is none of {', '.join(SUFFIXES)}. Convert it, or move it elsewhere.")
        refuse_unplain(path)
        found = True
        yield path
    if not found:
        raise UserError(f"the class {folder} has no images. Add some, or remove the folder.")


def _read(path: Path, size: int | None) -> np.ndarray:
    """One image, bytes ``[H, W]`` or ``[H, W, 3]``."""
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as file:
                if getattr(file, "n_frames", 1) > 1:
                    raise UserError(f"{path} holds several pictures. Save one of them in its place.")
                image = _plain(ImageOps.exif_transpose(file), path)
                if size is not None:
                    image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
                return np.asarray(image)
    except UserError:
        raise
    except Exception as error:  # Pillow raises many types of errors for damaged files
        reason = " ".join(str(error).replace(str(path), "it").split()) or type(error).__name__
        raise UserError(f"{path} cannot be read as an image ({reason}). Replace or remove it.") from error


def _plain(image: Image, path: Path) -> Image:
    """The image in mode L or RGB.

    Raises:
        UserError: it has transparent pixels, or numbers of no known range.
    """
    if image.mode in ("L", "RGB"):
        return image if "transparency" not in image.info else _opaque(image, path)
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        return _opaque(image, path)
    if image.mode.startswith("I"):
        return _from_16_bits(image, path)
    if image.mode == "F":
        raise UserError(f"{path} holds floating-point numbers, whose black and white are not known. Save it as 8 bits.")
    return image.convert("L" if image.mode == "1" else "RGB")


def _opaque(image: Image, path: Path) -> Image:
    whole = image.convert("RGBA")
    if np.asarray(whole.getchannel("A")).min() < OPAQUE:
        raise UserError(f"{path} has transparent pixels. Paste it on a background first.")
    return whole.convert("L" if image.mode in ("L", "LA", "La") else "RGB")


def _from_16_bits(image: Image, path: Path) -> Image:
    """Grey of 16 bits in 8: 65535 is 255."""
    from PIL import Image

    levels = np.asarray(image).astype(np.int64)
    if levels.min() < 0 or levels.max() > 65535:
        raise UserError(
            f"{path} holds numbers from {levels.min()} to {levels.max()}; grey has 0 to 65535. Save it as 8 bits."
        )
    return Image.fromarray(((levels + 128) // 257).astype(np.uint8))


def _stacked(images: Sequence[np.ndarray], paths: Sequence[Path]) -> np.ndarray:
    """All images in one array, ``[N, C, H, W]``.

    Raises:
        UserError: their sizes differ; names two of them.
    """
    for image, path in zip(images, paths, strict=True):
        if image.shape[:2] != images[0].shape[:2]:
            sizes = [f"{shape[1]}x{shape[0]}" for shape in (images[0].shape, image.shape)]
            raise UserError(
                f"{paths[0]} is {sizes[0]} and {path} is {sizes[1]}. Give --image-size, to which all are cropped and "
                "scaled, such as --image-size 32."
            )
    if all(image.ndim == 2 for image in images):
        return np.stack(images)[:, None]
    colour = (image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2) for image in images)
    return np.ascontiguousarray(np.moveaxis(np.stack(list(colour)), 3, 1))
