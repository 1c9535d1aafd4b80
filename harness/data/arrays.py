"""Arrays from an npz file: no code in it is run, and every byte of what is read is compared with its checksum."""

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from harness.errors import UserError


def read_arrays(path: Path, choose: Callable[[list[str]], Sequence[str]], way_out: str) -> dict[str, np.ndarray]:
    """Arrays of an npz file by name.

    Args:
        path: The file.
        choose: Takes the names of all arrays, and returns those to read; may raise `UserError`.
        way_out: Ends the message where the file is damaged.

    Raises:
        UserError: the file is damaged or no npz, or an array that was chosen holds Python objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            return {name: _array(archive, name) for name in choose(names)}
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}). {way_out}.") from error
    except Exception as error:  # zipfile, zlib and numpy raise many types of errors on damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} cannot be read as an npz file ({reason}). {way_out}.") from error


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """One array. The file is read to its end, where zipfile compares the checksum."""
    with archive.open(f"{name}.npy") as member:
        array: np.ndarray = np.lib.format.read_array(member, allow_pickle=False)
        if member.read(1):
            raise ValueError(f"{name} is longer than its header says")
    return array
