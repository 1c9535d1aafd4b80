"""Camera files in JSON: which pictures there are, where their cameras stand, and which are for testing.

    transforms_train.json, transforms_test.json    as the NeRF synthetic scenes have them; transforms_val.json is
                                                   taken in place of a missing one for testing, else it is read
                                                   where settings are to be chosen
    transforms.json                                one for all, as instant-ngp and nerfstudio write it

One file for all is split by its own `train_filenames` and `test_filenames` (or `val_filenames`) if it has them. Else
every 8th frame in the order of file names, from the first on, is for testing: the rule of LLFF.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.errors import UserError
from nerf.data import intrinsics, pixels
from nerf.data.intrinsics import is_number
from nerf.data.rotations import rigid_pose

HOLD_OUT = 8
LISTS = ("train_filenames", "test_filenames", "val_filenames")
RANGE = ("near", "far")
HARMLESS = (
    "rotation",
    "sharpness",
    "colmap_im_id",
    "camera_label",
    "comment",
    "frames",
    "file_path",
    "transform_matrix",
)
REFUSED = {  # keys that change what a picture shows, and what to do about them
    "mask_path": "Masks are not read: paint over what is masked, or remove the key",
    "mask_color": "Masks are not read: paint over what is masked, or remove the key",
    "white_transparent": "Make white transparent in the pictures themselves, or remove the key",
    "black_transparent": "Make black transparent in the pictures themselves, or remove the key",
}


@dataclass(frozen=True)
class Frame:
    """One picture and what is said of its camera."""

    file: Path
    matrix: list[list[float]]  # [3, 4], rotation and position
    said: Mapping[str, Any]  # its own parameters of the lens
    where: str  # file and number of the frame, for errors


@dataclass(frozen=True)
class CameraFile:
    """One JSON file."""

    path: Path
    content: Mapping[str, Any]
    frames: list[Frame]

    def range(self) -> tuple[float | None, float | None]:
        """`near` and `far`, if it says them."""
        near, far = (self.content.get(name) for name in RANGE)
        for name, value in (("near", near), ("far", far)):
            if value is not None and not (is_number(value) and value > 0):
                raise UserError(f"{self.path}: {name} is {str(value)[:40]}, not a distance. Correct it, or remove it.")
        return near, far


def read_split(folder: Path) -> tuple[CameraFile, CameraFile]:
    """The frames for training and for testing, and what holds for all of them.

    Raises:
        UserError: no such file, or a malformed one; it is named.
    """
    train, test = (folder / f"transforms_{split}.json" for split in ("train", "test"))
    validation, whole = folder / "transforms_val.json", folder / "transforms.json"
    if whole.exists() and not train.exists():
        file = read_cameras(whole)
        train_frames, test_frames = _split(file)
        return replace(file, frames=train_frames), replace(file, frames=test_frames)
    if validation.exists() and not test.exists():
        note(f"{folder} has no {test.name}: the views of {validation.name} are scored")
        test = validation
    return read_cameras(train), read_cameras(test)


def read_validation(folder: Path, splits: Sequence[CameraFile]) -> CameraFile | None:
    """The frames of transforms_val.json; None if there is no such file, or if it is tested.

    Args:
        folder: Where the camera files are.
        splits: What `read_split` found there.

    Raises:
        UserError: the file is malformed, or has a picture that is for training or for testing as well.
    """
    path = folder / "transforms_val.json"
    if not path.exists() or path in [split.path for split in splits]:
        return None
    file = read_cameras(path)
    for use, split in zip(("training", "testing"), splits, strict=True):
        if both := {frame.file for frame in file.frames} & {frame.file for frame in split.frames}:
            raise UserError(
                f"{path}: {min(both).name} is for {use} as well, and settings are chosen by views that are for "
                "neither. Correct it, or leave out --val-views."
            )
    return file


def read_cameras(path: Path) -> CameraFile:
    """Read one JSON file.

    Raises:
        UserError: it is missing or malformed.
    """
    try:
        content = json.loads(path.read_bytes())  # in UTF-8, 16 or 32, with a byte order mark or without
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}. {_way_out(path)}") from None
    except (ValueError, RecursionError) as error:  # ValueError: JSONDecodeError and UnicodeDecodeError
        raise UserError(f"{path} is not JSON ({error}). Replace it.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: camera_angle_x is None, and there are no frames. Replace the file.")
    frames = content.get("frames")
    if not isinstance(frames, list) or not frames:
        raise UserError(f"{path}: there is no list of frames. Replace the file.")
    _check_keys(path, content, [frame for frame in frames if isinstance(frame, dict)])
    return CameraFile(path, content, [_frame(path, index, frame) for index, frame in enumerate(frames)])


def find_picture(folder: Path, name: str) -> Path:
    """The file that a `file_path` means: as it stands, or with a suffix that it leaves out, .png first.

    A name written on Windows may have backslashes. Where nothing is found, the name with .png.
    """
    spellings = [name, name.replace("\\", "/")] if "\\" in name else [name]
    for spelling in spellings:
        for suffix in ("", *pixels.SUFFIXES, *(suffix.upper() for suffix in pixels.SUFFIXES)):
            path = folder / f"{spelling}{suffix}"
            if _is_file(path):
                return path
    named = Path(spellings[-1]).suffix.lower() in pixels.SUFFIXES
    return folder / (spellings[-1] if named else f"{spellings[-1]}.png")


def _way_out(path: Path) -> str:
    """What to do where there is no camera file."""
    if (path.parent / "poses_bounds.npy").exists():
        return "The folder holds a scene of LLFF: read it with --dataset llff."
    if path.name == "transforms_test.json":
        return "Add it, or rename transforms_train.json to transforms.json, of which every 8th view is then held out."
    return "A scene in the Blender format needs it, or one transforms.json for all pictures."


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # the name is too long or invalid
        return False


def _frame(path: Path, index: int, frame: Any) -> Frame:
    content = frame if isinstance(frame, dict) else {}
    name: Any = content.get("file_path")
    matrix: Any = content.get("transform_matrix")
    if not isinstance(name, str) or not name:
        raise UserError(f"{path}: frame {index} has no file_path. Replace the file.")
    if not _is_matrix(matrix):
        raise UserError(f"{path}: the transform_matrix of frame {index} is not 4 x 4 numbers. Replace the file.")
    said = {key: value for key, value in content.items() if key in intrinsics.KEYS}
    where = f"{path}: frame {index}" if said else str(path)
    rows = [[float(value) for value in row] for row in matrix]
    pose = rigid_pose(rows, f"{path}: the transform_matrix of frame {index}")
    return Frame(find_picture(path.parent, name), pose, said, where)


def _is_matrix(value: Any) -> bool:
    """Whether it is a list of 4 rows (3 will do) of 4 numbers."""
    if not isinstance(value, list) or len(value) not in (3, 4):
        return False
    return all(isinstance(row, list) and len(row) == 4 and all(map(is_number, row)) for row in value)


def _check_keys(path: Path, content: Mapping[str, Any], frames: Sequence[Mapping[str, Any]]) -> None:
    """Refuse keys that change the pictures, and print those that are not used."""
    for key, way_out in REFUSED.items():
        if any(part.get(key) not in (None, False, "", []) for part in (content, *frames)):
            raise UserError(f"{path} has {key}. {way_out}.")
    times = [frame["time"] for frame in frames if "time" in frame]
    if any(time != times[0] for time in times):
        raise UserError(
            f"{path}: frames have a time of their own, and a scene that moves is not read. Take one moment."
        )
    known = {*intrinsics.KEYS, *LISTS, *RANGE, *HARMLESS, *REFUSED, "time"}
    unused = dict.fromkeys(key for part in (content, *frames) for key in part if key not in known)
    if unused:
        note(
            f"{path}: not used {'is' if len(unused) == 1 else 'are'} {', '.join(key[:40] for key in list(unused)[:20])}"
        )


def _split(file: CameraFile) -> tuple[list[Frame], list[Frame]]:
    """Frames for training and for testing, out of one file."""
    names = [str(frame.file) for frame in file.frames]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{file.path} has {twice} twice, which would be split between training and test. Remove one.")
    if any(name in file.content for name in LISTS):
        return _by_lists(file)
    order = sorted(file.frames, key=lambda frame: str(frame.file))
    train = [frame for number, frame in enumerate(order) if number % HOLD_OUT]
    if not train:
        raise UserError(f"{file.path} has one frame. A scene needs a test view and a training view at least.")
    test = order[::HOLD_OUT]
    note(
        f"{file.path}: every {HOLD_OUT}th frame in the order of file names is a test view, {len(test)} of {len(order)}"
    )
    return train, test


def _by_lists(file: CameraFile) -> tuple[list[Frame], list[Frame]]:
    """Frames that the file itself lists for training and for testing."""
    found = []
    for keys in (LISTS[:1], LISTS[1:]):
        listed = next((file.content[key] for key in keys if file.content.get(key)), None)
        if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
            raise UserError(
                f"{file.path}: {' or '.join(keys)} is no list of file names. Correct it, or remove all such."
            )
        chosen = {find_picture(file.path.parent, name) for name in listed}
        frames = [frame for frame in file.frames if frame.file in chosen]
        if len(frames) < len(chosen):
            raise UserError(
                f"{file.path}: {keys[0]} names a picture that is in no frame. Correct it, or remove all such."
            )
        found.append(frames)
    if both := {frame.file for frame in found[0]} & {frame.file for frame in found[1]}:
        raise UserError(f"{file.path}: {min(both).name} is listed for training and for testing. Correct it.")
    return found[0], found[1]


def note(text: str) -> None:
    """One line on stderr about how a scene is read."""
    import sys

    print(f"{text}.", file=sys.stderr)
