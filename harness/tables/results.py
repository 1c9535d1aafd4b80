"""Results as JSON: what one run says about itself, and the files in which a table's runs are gathered.

A result is the dict that a training script writes to `result.json`: task, model, dataset, method, seed, metrics,
seconds, config, versions, commit, device, and optionally curves (name -> list of numbers) and the number of processes.
Numbers that are not finite become null, because JSON cannot represent them.

`results/<task>/<table>.jsonl` holds one line a run: {"table", "row", "column", "preset", "dataset", "method", "seed",
"scale", "result": {...}}.
"""

import dataclasses
import enum
import functools
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from harness.errors import UserError, writing
from harness.processes import current

PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "torch-geometric",
    "scikit-learn",
    "openTSNE",
    "polars",
    "tokenizers",
    "torchmetrics",
)
# Fields of a configuration that decide where a run takes place, not what it finds.
PLACES = frozenset({"data_dir", "out", "resume", "device", "config", "table", "criteo_file"})
# What every line of a results file has: which run it is, and what came out.
KEYS = frozenset({"preset", "dataset", "method", "seed", "scale", "result"})
ROOT = Path(__file__).resolve().parent.parent


def make_result(
    *,
    task: str,
    model: str,
    dataset: str,
    method: str,
    seed: int,
    metrics: Mapping[str, Any],
    seconds: float,
    config: Any,
    device: Any = "cpu",
    curves: Mapping[str, Iterable[Any]] | None = None,
) -> dict[str, Any]:
    """One run's result, with the versions, the commit and the hardware it came from, ready for `json.dumps`.

    Args:
        task: The task's folder, such as "graphs".
        model: What was trained, by its name on the command line.
        dataset: What it was trained on.
        method: A name or a member of `tinydfa.Method`.
        seed: The seed of the run.
        metrics: Name to number; numbers that are not finite become null.
        seconds: Wall-clock time of the run.
        config: The resolved configuration, a dataclass or a mapping.
        device: A torch device, or its name.
        curves: Numbers per epoch or step, for the report's figures.
    """
    from harness.device import describe_device

    result = {
        "task": task,
        "model": model,
        "dataset": dataset,
        "method": plain(method),
        "seed": seed,
        "metrics": plain(metrics),
        "seconds": round(seconds, 3),
        "config": plain(config),
        "versions": versions(),
        "commit": commit(),
        "device": describe_device(device),
    }
    if (size := current().size) > 1:
        result["processes"] = size
    return result | ({"curves": plain(curves)} if curves else {})


def given(settings: Any) -> Any:
    """Settings without those that are None, in all depths: to have a setting that is None is not to have it.

    Example:
        >>> given({"lr": 0.1, "feedback": {"seed": 0, "threshold": None}})
        {'lr': 0.1, 'feedback': {'seed': 0}}
    """
    if not isinstance(settings, Mapping):
        return settings
    return {name: given(value) for name, value in settings.items() if value is not None}


def plain(value: Any) -> Any:
    """`value` as JSON types: dataclasses as dicts, enums by value, paths as strings, NaN and inf as None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    if hasattr(value, "tolist"):  # tensors and arrays, 0-d ones included
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    return str(value)


def slim(result: dict[str, Any], seeds: int = 3, digits: int = 4) -> dict[str, Any]:
    """A result as a table keeps it: curves rounded, and none for seeds from `seeds` on, since they are for figures."""
    curves = result.pop("curves", {})
    return result | ({"curves": _rounded(curves, digits)} if curves and result["seed"] < seeds else {})


def _rounded(value: Any, digits: int) -> Any:
    """All floats in nested lists and dicts, rounded."""
    if isinstance(value, dict):
        return {name: _rounded(item, digits) for name, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item, digits) for item in value]
    return round(value, digits) if isinstance(value, float) else value


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide numbers."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        if package.replace("-", "_").replace("scikit_learn", "sklearn") in sys.modules:
            found[package] = importlib.metadata.version(package)
    return found


@functools.cache
def commit() -> str | None:
    """The commit of the project's checkout, with "+changes" after it if files differ; None outside a checkout."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+changes" if changed else "")


def append(path: Path, line: Mapping[str, Any]) -> None:
    """Add one line to a `.jsonl` file, folders included; the line is on the disk when this returns.

    An incomplete line, left by a killed process, is removed first.

    Raises:
        ValueError: `read` would refuse the line, because it lacks some of `KEYS`.
        UserError: it could not be written.
    """
    if not line.keys() >= KEYS or not isinstance(line["result"], Mapping):
        raise ValueError(f"a line of {path.name} needs {', '.join(sorted(KEYS))}, and has {', '.join(sorted(line))}")
    text = json.dumps(plain(line), allow_nan=False) + "\n"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+b") as file:  # appending: two processes may gather runs of one table
            _cut_torn_line(file)
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a `.jsonl` file; none if it is absent. A last line cut short by a kill is left out.

    Raises:
        UserError: another line is not a run; names file and line.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]  # without a newline after it, a write was cut short
    return [_run_in(text, f"{path}, line {number}") for number, text in enumerate(lines, start=1) if text.strip()]


def _run_in(text: bytes, place: str) -> dict[str, Any]:
    """One line of a results file."""
    way_out = "Delete that line to run it again."
    try:
        found = json.loads(text, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:  # ValueError: no JSON, or bytes that are no text
        raise UserError(f"{place} is not JSON ({getattr(error, 'msg', error)}). {way_out}") from None
    if not isinstance(found, dict) or not found.keys() >= KEYS or not isinstance(found["result"], dict):
        raise UserError(f"{place} is not a run of a table. {way_out}")
    return found


def _finite(word: str) -> float:
    """A JSON number; `ValueError` if it is too large for a float, NaN or infinite."""
    number = float(word)
    if not math.isfinite(number):
        raise ValueError(f"{word} is no finite number")
    return number


def _cut_torn_line(file: BinaryIO) -> None:
    """Drop what lies behind the last newline of a file opened for reading and appending."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - 1, 0))
    if file.read(1) not in (b"", b"\n"):
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
