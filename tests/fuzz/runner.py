"""One case of the fuzz run: write a valid input, read it, damage a file of it, read it again, and judge."""

import contextlib
import dataclasses
import io
import os
import random
import signal
import tempfile
import traceback
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from harness.errors import UserError
from tests.fuzz.damages import DAMAGES
from tests.fuzz.formats import Format
from tinydfa import DFAError

READING, REFUSAL, FAULT = "reading", "refusal", "fault"
LIMIT = 60.0  # seconds a case
DEEP = 12  # levels of objects that are compared


class TooLong(BaseException):
    """A case ran past its limit. No `except Exception` of a reader holds it up."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a case ended."""

    kind: str
    format: str
    damage: str  # what was done, and to which file
    message: str = ""


def run_case(name: str, format_: Format, seed: int, limit: float = LIMIT) -> Outcome:
    """Run the case that `seed` decides."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as place, surroundings(Path(place) / "cache"):
        folder = Path(place) / "data"
        folder.mkdir()
        damage = "the valid input"
        try:
            with time_limit(limit):
                path = format_.make(folder, rng)
                before = content_of(folder)
                valid = format_.read(path)
                if fault := unsound(valid, folder, before, Path(place) / "cache"):
                    return Outcome(FAULT, name, damage, fault)
                damage = damaged(folder, format_, rng)
                after = content_of(folder)
                found = format_.read(path)
        except (UserError, DFAError) as error:
            kind, message = (FAULT if damage == "the valid input" else REFUSAL), str(error)
            if left := untouched(folder, after if kind == REFUSAL else before, Path(place) / "cache"):
                kind, message = FAULT, left
            return Outcome(kind, name, damage, message if message.strip() else "an empty message")
        except TooLong:
            return Outcome(FAULT, name, damage, f"took more than {limit:g} seconds")
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            reason = f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"
            return Outcome(FAULT, name, damage, reason)
        fault = unsound(found, folder, after, Path(place) / "cache")
        if not fault and after == before and not same(valid, found):
            fault = "the same files are read as something else"
        return Outcome(FAULT if fault else READING, name, damage, fault)


@contextlib.contextmanager
def surroundings(cache: Path) -> Iterator[None]:
    """A cache of its own, no data folder, no network; neither warnings nor the notes of readers are shown."""
    variables = {name: value for name, value in os.environ.items() if name != "DFA_DATA"}
    with (
        mock.patch.dict(os.environ, variables | {"TINYDFA_CACHE": str(cache)}, clear=True),
        mock.patch("harness.data.remote.download", return_value=["no network in this run"]),
        warnings.catch_warnings(),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TooLong` in the block after `seconds`, where the system has timers."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: object) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def damaged(folder: Path, format_: Format, rng: random.Random) -> str:
    """Damage one file of the format; says what was done."""
    files = sorted({path for pattern in format_.damage for path in folder.glob(pattern) if path.is_file()})
    path, damage = rng.choice(files), rng.choice(list(DAMAGES))
    content = DAMAGES[damage](path.read_bytes(), rng)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    return f"{damage} of {path.relative_to(folder)}"


def content_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def untouched(folder: Path, before: Mapping[str, bytes], cache: Path) -> str:
    """Why the folders are not as a reader has to leave them; empty if they are."""
    if content_of(folder) != before:
        return "the reader changed the files that it read"
    half = [path.name for path in cache.rglob("*") if path.name.endswith((".tmp", ".part"))]
    return f"left {half[0]} in the cache" if half else ""


def unsound(value: Any, folder: Path, before: Mapping[str, bytes], cache: Path) -> str:
    """Why a reading cannot be right; empty if nothing speaks against it."""
    if left := untouched(folder, before, cache):
        return left
    return "a number in what was read is not finite" if any(not finite(array) for array in arrays(value)) else ""


def finite(array: np.ndarray) -> bool:
    return array.dtype.kind not in "fc" or bool(np.isfinite(array).all())


def arrays(value: Any, seen: set[int] | None = None, depth: int = 0) -> Iterator[np.ndarray]:
    """All numbers in a reading, each object once."""
    seen = set() if seen is None else seen
    if isinstance(value, torch.Tensor):
        yield value.detach().cpu().to_dense().float().numpy() if value.dtype.is_floating_point else np.zeros(0)
    elif isinstance(value, np.ndarray | float):
        yield np.asarray(value)
    elif depth < DEEP and id(value) not in seen:
        seen.add(id(value))
        for part in parts(value):
            yield from arrays(part, seen, depth + 1)


def parts(value: Any) -> Iterator[Any]:
    """What an object is made of; nothing for words, numbers, functions and modules."""
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        yield from value
    elif isinstance(value, str | bytes | int | float | type(None) | Path | type) or callable(value):
        return
    elif hasattr(value, "__dict__"):
        yield from vars(value).values()


def same(one: Any, other: Any, seen: set[tuple[int, int]] | None = None, depth: int = 0) -> bool:
    """Whether two readings hold the same."""
    seen = set() if seen is None else seen
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one.to_dense(), other.to_dense())
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, str | bytes | int | float | Path):
        return bool(one == other)
    if (id(one), id(other)) in seen or depth > DEEP:
        return True
    seen.add((id(one), id(other)))
    if isinstance(one, Mapping) and list(one) != list(other):
        return False
    mine, others = list(parts(one)), list(parts(other))
    return len(mine) == len(others) and all(same(a, b, seen, depth + 1) for a, b in zip(mine, others, strict=True))
