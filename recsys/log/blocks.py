"""Blocks of rows on disk, dictionary-coded: each has a dictionary of the values that occur in it, and indices into it.

They are kept until the vocabulary of the log is known, so that the text is parsed only once. A block is a few files
in a folder. Its JSON is written last and holds the sizes of the others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from harness.files import write_whole
from recsys.log.formats import RowFormat, Rule
from recsys.log.rows import Malformed, parse
from recsys.log.text import Block
from recsys.log.vocabulary import FieldEncoder, frame_values, make_field, summed

NO_SPACE = "Free some space, or set TINYDFA_CACHE to a folder on another disk"
EXAMPLES = 10  # malformed lines of a block that are kept for messages
AT_ONCE = 1 << 23  # dictionary entries merged at once: about 0.35 GB
TYPES = {"codes": np.int32, "labels": np.uint8, "values": np.int64, "counts": np.int32}


@dataclass(frozen=True)
class CodedBlock:
    """A block on disk."""

    stem: str  # path of its files, without their suffixes
    rows: int
    ends: list[int]  # where the dictionary of field 0, 1, ... ends
    sizes: dict[str, int]  # bytes of the files
    bad: int  # malformed lines
    malformed: list[Malformed]  # the first of them

    def load(self, part: str, field: int | None = None) -> np.ndarray:
        """One of its arrays, or the part of it that belongs to a field.

        "codes": int32 ``[F, rows]``, indices into the dictionary; "labels": uint8 ``[rows]``; "values": int64, the
        dictionary, one field after another (numbers as their bits); "counts": int32, how often each value occurs.
        """
        kind = np.dtype(TYPES[part])
        if field is None:
            array = np.fromfile(f"{self.stem}.{part}", kind)
            return array.reshape(len(self.ends), self.rows) if part == "codes" else array
        here = slice(field * self.rows, (field + 1) * self.rows) if part == "codes" else self.span(field)
        return np.fromfile(f"{self.stem}.{part}", kind, here.stop - here.start, offset=here.start * kind.itemsize)

    def span(self, field: int) -> slice:
        """The part of the dictionary that belongs to a field."""
        return slice(self.ends[field - 1] if field else 0, self.ends[field])


def code_block(block: Block, layout: RowFormat, stem: str) -> CodedBlock:
    """Parse a block of text and write it in coded form, unless an earlier run did."""
    earlier = _finished(stem)
    if earlier is not None:
        return earlier
    rows = parse(block, layout)
    codes = np.empty((len(layout.fields), len(rows.frame)), dtype=np.int32)
    values, counts, ends, end = [], [], [], 0
    for place, column in enumerate(frame_values(rows.frame, layout.fields)):
        # Numbers are compared by their bits: any order will do, and all missing numbers have the same bits.
        bits = np.ascontiguousarray(column).view(np.int64)
        unique, inverse, count = np.unique(bits, return_inverse=True, return_counts=True)
        codes[place] = inverse + end
        values.append(unique)
        counts.append(count.astype(np.int32))
        end += len(unique)
        ends.append(end)
    assert rows.labels is not None
    arrays = {
        "codes": codes,
        "labels": rows.labels,
        "values": np.concatenate(values),
        "counts": np.concatenate(counts),
    }
    for part, array in arrays.items():
        array.tofile(f"{stem}.{part}")
    sizes = {part: array.nbytes for part, array in arrays.items()}
    coded = CodedBlock(stem, len(rows.labels), ends, sizes, len(rows.malformed), rows.malformed[:EXAMPLES])
    write_whole(Path(f"{stem}.json"), json.dumps(asdict(coded)), NO_SPACE)
    return coded


def _finished(stem: str) -> CodedBlock | None:
    """The block that an interrupted run wrote, if it is complete."""
    try:
        found = json.loads(Path(f"{stem}.json").read_text(encoding="utf-8"))
        coded = CodedBlock(**found | {"malformed": [Malformed(**bad) for bad in found["malformed"]], "stem": stem})
        whole = all(Path(f"{stem}.{part}").stat().st_size == size for part, size in coded.sizes.items())
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return coded if whole else None


def build_field(
    blocks: Sequence[tuple[CodedBlock, np.ndarray]],
    layout: RowFormat,
    field: int,
    min_count: int,
    at_once: int = AT_ONCE,
) -> FieldEncoder:
    """The vocabulary of a field over all blocks.

    Args:
        blocks: Each block, with the part that each of its rows belongs to, ``[rows]``; rows of part 0 are counted.
        layout: What the lines hold.
        field: Index of the field.
        min_count: A category seen less often gets id 0.
        at_once: Dictionary entries to hold in memory at most.
    """
    name, rule = layout.fields[field]
    merged = list(_merged(blocks, field, min_count if rule is Rule.CATEGORY else 1, at_once))
    values = np.concatenate([values for values, _ in merged])
    counts = np.concatenate([counts for _, counts in merged])
    return make_field(name, rule, values if rule is Rule.CATEGORY else values.view(np.float64), counts, min_count)


def _merged(
    blocks: Sequence[tuple[CodedBlock, np.ndarray]], field: int, min_count: int, at_once: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Values of a field and their counts over all blocks, without those seen less than `min_count` times.

    If the dictionaries are too large to merge at once, they are merged in slices by the value's remainder.
    """
    entries = sum(block.span(field).stop - block.span(field).start for block, _ in blocks)
    slices = max(1, -(-entries // at_once))
    for remainder in range(slices):
        values, counts = [], []
        for block, part in blocks:
            value, count = block.load("values", field), _counts(block, field, part)
            here = value % slices == remainder if slices > 1 else slice(None)
            values.append(value[here])
            counts.append(count[here])
        known, totals = summed(np.concatenate(values), np.concatenate(counts))
        frequent = totals >= max(min_count, 1)
        yield known[frequent], totals[frequent]


def _counts(block: CodedBlock, field: int, part: np.ndarray) -> np.ndarray:
    """How often each entry of a field's dictionary occurs in the rows of part 0."""
    if not part.any():
        return block.load("counts", field)
    span = block.span(field)
    codes = block.load("codes", field)[part == 0] - span.start
    return np.bincount(codes, minlength=span.stop - span.start).astype(np.int32)


def translate(block: CodedBlock, fields: Sequence[FieldEncoder]) -> np.ndarray:
    """The ids of a block's rows, int32 ``[rows, F]``."""
    tables = []
    for place, field in enumerate(fields):
        values = block.load("values", place)
        tables.append(field.ids(values if field.rule is Rule.CATEGORY else values.view(np.float64)))
    table = np.concatenate(tables)
    codes = block.load("codes")
    ids = table[codes] if len(table) else codes
    return torch.from_numpy(ids).t().contiguous().numpy()  # numpy's copy takes several times as long
