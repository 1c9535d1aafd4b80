"""Mistakes of the user, as opposed to faults of the program.

`harness.cli.run` prints these as one line, without a traceback, and leaves with exit status 2.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NEW_OUT = "Free some space or choose another folder with --out"


class UserError(Exception):
    """Something the user can put right. The message names the culprit, the cause and the way out."""


class NonFiniteLoss(UserError):  # noqa: N818 - named for what the user sees
    """Training diverged: the loss is infinite or not a number."""


@contextmanager
def writing(path: Path, way_out: str = NEW_OUT) -> Iterator[None]:
    """Turn an `OSError` raised in the block (no permission, no space, not a folder) into a `UserError` about `path`."""
    try:
        yield
    except FileExistsError as error:  # where a folder should be made
        raise UserError(f"cannot write {path}: it is there, and not a folder. {way_out}.") from error
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}. {way_out}.") from error
