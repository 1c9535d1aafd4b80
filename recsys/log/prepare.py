"""From the text of a click log to the files that training reads, in two passes and in bounded memory.

First pass: each block of text is parsed and coded on its own (`recsys.log.blocks`). Then the blocks' dictionaries are
merged into one vocabulary per field. Second pass: the blocks' codes become ids, and each row goes to its part of the
log. In memory are a few blocks, one field's counts and a few bytes per row for the split. The disk holds, until the
end, about one and a half times the size of the text in addition.

An interrupted preparation leaves its finished blocks, and the next call continues from them.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from harness.errors import UserError, writing
from harness.run.progress import track
from recsys.log.blocks import EXAMPLES, NO_SPACE, CodedBlock, build_field, code_block, translate
from recsys.log.encoder import Encoder
from recsys.log.formats import PARTS, RowFormat, Source
from recsys.log.text import BLOCK_BYTES, Block, table_blocks, table_header
from recsys.log.vocabulary import FieldEncoder

WORKERS = min(4, os.cpu_count() or 1)
SMALL_BLOCK = 1 << 20  # bytes; smaller ones cost more in files than they gain

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class Prepared:
    """What was prepared."""

    encoder: Encoder
    rows: dict[str, int]  # of each part
    malformed: int


def prepare(
    sources: Sequence[Source],
    layout: RowFormat,
    folder: Path,
    *,
    seed: int,
    min_count: int,
    count_all: bool,
    limit: int | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Prepared:
    """Write `train.fields` (int32 ``[N, F]``, row by row), `train.labels` (uint8 ``[N]``), and so on, to `folder`.

    Args:
        sources: Text files; their rows keep their order within a part.
        layout: What their lines hold.
        folder: An existing folder. Blocks that an earlier call with the same arguments wrote there are used.
        seed: Decides which row of a source goes to which part.
        min_count: A category seen less often gets id 0.
        count_all: Count categories in the rows of all parts, not in the training rows alone.
        limit: Lines to read of each source; None: all.
        block_bytes: Text parsed at once.

    Raises:
        UserError: a source cannot be read, has too many malformed rows, or a part would be empty.
    """
    coded = [_code(source, place, layout, folder, limit, block_bytes) for place, source in enumerate(sources)]
    bad = sum(report_malformed(source.path, blocks) for source, blocks in zip(sources, coded, strict=True))
    pairs = []
    for source, blocks in zip(sources, coded, strict=True):
        ends = np.cumsum([block.rows for block in blocks])
        pairs += list(zip(blocks, np.split(split(int(ends[-1]), source.shares, seed), ends[:-1]), strict=True))
    totals = np.sum([np.bincount(part, minlength=len(PARTS)) for _, part in pairs], axis=0)
    if not totals.all():
        names = ", ".join(str(source.path) for source in sources)
        raise UserError(f"{names}: {totals.sum()} rows do not give a training, validation and test part. Give more.")
    counted = pairs if not count_all else [(block, np.zeros(block.rows, dtype=np.uint8)) for block, _ in pairs]
    built = _in_order(lambda place: build_field(counted, layout, place, min_count), range(len(layout.fields)))
    fields = tuple(track(built, "counting categories", len(layout.fields)))
    _write_parts(pairs, fields, folder)
    return Prepared(Encoder(layout, fields), dict(zip(PARTS, totals.tolist(), strict=True)), bad)


def _code(
    source: Source, place: int, layout: RowFormat, folder: Path, limit: int | None, block_bytes: int
) -> list[CodedBlock]:
    """The first pass: the coded blocks of a source, in order."""
    if layout.header:
        names, separator = table_header(source.path, layout)
        layout = layout.with_header(names, source.path, separator)
    # A small file is cut into more blocks than there are workers, so that all workers finish at about the same time.
    block_bytes = min(block_bytes, max(SMALL_BLOCK, source.path.stat().st_size // (4 * WORKERS)))
    texts = table_blocks(source.path, layout, block_bytes, limit)

    def code(block: Block) -> CodedBlock:
        # The name says which lines these are, so that a run with another block size does not use them.
        return code_block(block, layout, f"{folder}/{place}-{block.first_line}-{len(block.text)}")

    with writing(folder, NO_SPACE):
        total = -(-source.path.stat().st_size // block_bytes) if limit is None else None
        return list(track(_in_order(code, texts), f"reading {source.path.name}", total))


def _write_parts(pairs: Sequence[tuple[CodedBlock, np.ndarray]], fields: Sequence[FieldEncoder], folder: Path) -> None:
    """The second pass: write each row's ids and label to the files of its part."""
    with writing(folder, NO_SPACE), contextlib.ExitStack() as stack:
        outputs = [
            [stack.enter_context(open(folder / f"{part}.{column}", "wb")) for column in ("fields", "labels")]
            for part in PARTS
        ]

        def divided(pair: tuple[CodedBlock, np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
            (block, part), ids = pair, translate(pair[0], fields)
            rows = [np.flatnonzero(part == place) for place in range(len(PARTS))]
            labels = block.load("labels")
            return [(ids[chosen], labels[chosen]) for chosen in rows]

        for parts in track(_in_order(divided, pairs), "writing ids", len(pairs)):
            for (ids, labels), (to_fields, to_labels) in zip(parts, outputs, strict=True):
                to_fields.write(ids.data)
                to_labels.write(labels.data)


def split(rows: int, shares: tuple[float, float, float], seed: int) -> np.ndarray:
    """The part of each row, uint8 ``[rows]``: 0 train, 1 val, 2 test.

    Sizes are ``int(share * rows)``; the remainder goes to the last part with a share. The rows are those that
    `torch.utils.data.random_split` gives for these sizes and a generator with this seed.
    """
    sizes = [int(share * rows) for share in shares]
    sizes[max(place for place in range(len(PARTS)) if shares[place])] += rows - sum(sizes)
    part = np.repeat(np.arange(len(PARTS), dtype=np.uint8), sizes)
    if max(sizes, default=0) == rows:
        return part
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed)).numpy()
    shuffled = np.empty_like(part)
    shuffled[order] = part
    return shuffled


def report_malformed(path: Path, blocks: Sequence[CodedBlock]) -> int:
    """Report on stderr which rows were skipped; return their number.

    Raises:
        UserError: more than 1 % of the rows and more than 10 are malformed, or half of them: the format is wrong.
    """
    bad = sum(block.bad for block in blocks)
    rows = sum(block.rows for block in blocks) + bad
    if not rows:
        raise UserError(f"{path} has no rows. Give a click log with one impression a line.")
    if not bad:
        return 0
    examples = [malformed for block in blocks for malformed in block.malformed][:EXAMPLES]
    listed = "; ".join(f"line {each.line}: {each.reason}" for each in examples)
    summary = f"{path}: {bad} of {rows} rows are malformed ({listed}{'; ...' if bad > len(examples) else ''})"
    if bad > max(10, rows // 100) or 2 * bad >= rows:
        raise UserError(f"{summary}. That is too many to skip: check that it is the right file, and whole.")
    print(f"{summary}. They were skipped.", file=sys.stderr)
    return bad


def _in_order(function: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    """`map` in threads, only a few items ahead, so that memory stays bounded."""
    with ThreadPoolExecutor(WORKERS) as pool:
        waiting: deque[Future[B]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > WORKERS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
