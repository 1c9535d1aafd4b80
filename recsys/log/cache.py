"""Prepared click logs in the cache folder, keyed by a hash of their sources and options.

The name of a log's folder contains a hash of its sources' content and of the options that decide its ids. Its manifest
holds the size and sha256 of every file.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.data import cache_dir
from harness.data.cache import make_once
from harness.errors import UserError
from harness.files import write_whole
from recsys.log.blocks import NO_SPACE
from recsys.log.clicks import ClickData, Clicks
from recsys.log.encoder import ENCODER, Encoder
from recsys.log.formats import PARTS, RowFormat, Source
from recsys.log.prepare import prepare

VERSION = 2  # of the file format; increasing it has all logs prepared again
WHOLE_FILE = 1 << 26  # bytes; of a larger file only samples are hashed
SAMPLES, SAMPLE = 64, 1 << 18  # how many, and bytes of each


def open_log(
    name: str,
    sources: Sequence[Source],
    layout: RowFormat,
    *,
    seed: int,
    min_count: int,
    count_all: bool,
    limit: int | None = None,
    check: Callable[[], None] | None = None,
) -> ClickData:
    """A click log from the cache, which is prepared first if it is not there.

    Arguments as in `recsys.log.prepare.prepare`; `check` is called before a preparation and may refuse the sources.

    Raises:
        UserError: a source cannot be read or has another format; the cache cannot be written, or is damaged.
    """
    options = {
        "version": VERSION,
        "layout": layout.to_dict(),
        "sources": [[fingerprint(source.path), *source.shares] for source in sources],
        "seed": seed,
        "min_count": min_count,
        "count_all": count_all,
        "limit": limit,
    }
    key = hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:16]
    folder = cache_dir() / "recsys" / f"{name}-{key}"

    def make(partial: Path) -> None:
        if check is not None:
            check()
        _refuse_full_disk(partial, sources, limit)
        log = prepare(sources, layout, partial, seed=seed, min_count=min_count, count_all=count_all, limit=limit)
        _finish(partial, options, log.encoder, {"rows": log.rows, "malformed": log.malformed})

    make_once(folder, make, NO_SPACE, is_whole=Path.exists, go_on=True)
    return read_log(name, folder)


def read_log(name: str, folder: Path, *, check: bool = True) -> ClickData:
    """A prepared log. Its tables are memory-mapped, so they stay on disk until they are read.

    Args:
        name: What the log is called in results.
        folder: Where it lies.
        check: Compare the files with the manifest; False if another process of this run has done so.

    Raises:
        UserError: a file is missing, or is not what was written.
    """
    way_out = f"Remove {folder} to have it prepared again"
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        prints = manifest["files"] if check else {}
        wrong = [file for file, print_ in prints.items() if fingerprint(folder / file) != print_]
        if wrong:
            raise UserError(f"{folder / wrong[0]} is damaged: it is not what was written. {way_out}.")
        encoder = Encoder.from_dict(json.loads((folder / ENCODER).read_text(encoding="utf-8")))
        rows = manifest["rows"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"the prepared click log {folder} is damaged ({error}). {way_out}.") from error
    train, val, test = (_part(folder, part, rows[part], len(encoder.fields)) for part in PARTS)
    return ClickData(name, train, val, test, encoder.field_dims, encoder.layout.names, encoder, folder)


def _part(folder: Path, part: str, rows: int, fields: int) -> Clicks:
    # Mode "c" (copy on write), because torch warns about tensors that are not writable.
    table = np.memmap(folder / f"{part}.fields", dtype=np.int32, mode="c", shape=(rows, fields))
    labels = np.memmap(folder / f"{part}.labels", dtype=np.uint8, mode="c", shape=(rows,))
    return Clicks(torch.from_numpy(table), torch.from_numpy(labels))


def _finish(folder: Path, options: dict[str, Any], encoder: Encoder, found: dict[str, Any]) -> None:
    """Write the remaining files, and remove what the preparation needed alone."""
    write_whole(folder / ENCODER, json.dumps(encoder.to_dict()), NO_SPACE)
    files = [ENCODER, *(f"{part}.{column}" for part in PARTS for column in ("fields", "labels"))]
    prints = {file: fingerprint(folder / file) for file in files}
    write_whole(folder / "manifest.json", json.dumps(options | found | {"files": prints}, indent=1), NO_SPACE)
    for path in folder.iterdir():
        if path.name not in (*files, "manifest.json"):
            path.unlink()


def fingerprint(path: Path) -> str:
    """Size and sha256 of a file; of one above 64 MB, the sha256 of 64 samples of 256 KB, evenly spread.

    The samples include both ends, and take less than a second for a file of any size. A change that keeps the size and
    falls between the samples is not noticed.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            if size <= WHOLE_FILE:
                return f"{size}-{hashlib.file_digest(file, 'sha256').hexdigest()}"
            digest = hashlib.sha256()
            for place in range(SAMPLES):
                file.seek((size - SAMPLE) * place // (SAMPLES - 1))
                digest.update(file.read(SAMPLE))
            return f"{size}-sampled-{digest.hexdigest()}"
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror or error}. Check the path and its permissions."
        ) from error


def _refuse_full_disk(folder: Path, sources: Sequence[Source], limit: int | None) -> None:
    needed = 0 if limit else sum(source.path.stat().st_size for source in sources) * 3 // 2
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder}: preparing takes about {needed / 1e9:.1f} GB temporarily, and {free / 1e9:.1f} GB are free. "
            f"{NO_SPACE}."
        )
