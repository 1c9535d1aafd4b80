"""Blocks of rows, coded on their own: each holds a small dictionary of the values that occur in it, and indices.

This is what is kept between reading a log and knowing its vocabulary, so that the text is parsed only once. A block
lies in a folder as a few files; the last one written is its JSON, which holds the others' sizes.
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

EXAMPLES = 10  # malformed lines of a block that are remembered
AT_ONCE = 1 << 23  # dictionary entries merged at once: about 0.35 GB
TYPES = {"codes": np.int32, "labels": np.uint8, "values": np.int64, "counts": np.int32}


@dataclass(frozen=True)
class CodedBlock:
    """A block in its folder."""

    stem: str  # path of its files, without their endings
    rows: int
    ends: list[int]  # where the dictionary of field 0, 1, ... ends
    sizes: dict[str, int]  # bytes of the files
    bad: int  # malformed lines
    malformed: list[Malformed]  # the first of them

    def load(self, part: str, field: int | None = None) -> np.ndarray:
        """One of its arrays, or the part of it that belongs to a field.

        "codes": int32 ``[F, rows]``, places in the dictionary; "labels": uint8 ``[rows]``; "values": int64, the
        dictionary, all fields one after another (numbers by their bits); "counts": int32, how often each occurs.
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
    """Parse a block of text and write its coded form; return what was written, or what an earlier run wrote."""
    earlier = _finished(stem)
    if earlier is not None:
        return earlier
    rows = parse(block, layout)
    codes = np.empty((len(layout.fields), len(rows.frame)), dtype=np.int32)
    values, counts, ends, end = [], [], [], 0
    for place, column in enumerate(frame_values(rows.frame, layout.fields)):
        # Numbers go by their bits: sorting those is as good as any order, and all missing ones have the same.
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
    write_whole(Path(f"{stem}.json"), json.dumps(asdict(coded)), "Free some space, or set TINYDFA_CACHE to a folder")
    return coded


def _finished(stem: str) -> CodedBlock | None:
    """The block that an interrupted run left, if it is whole."""
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
        blocks: Each block with the part of each of its rows, ``[rows]``; those of part 0 count.
        layout: What the blocks' lines hold.
        field: Which field.
        min_count: A category seen less often shares id 0.
        at_once: Dictionary entries that may be in memory.
    """
    name, rule = layout.fields[field]
    merged = list(_merged(blocks, field, min_count if rule is Rule.CATEGORY else 1, at_once))
    values = np.concatenate([values for values, _ in merged])
    counts = np.concatenate([counts for _, counts in merged])
    return make_field(name, rule, values if rule is Rule.CATEGORY else values.view(np.float64), counts, min_count)


def _merged(
    blocks: Sequence[tuple[CodedBlock, np.ndarray]], field: int, min_count: int, at_once: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Values of a field with their counts in all blocks, those seen less than `min_count` times left out.

    If the dictionaries are too large together they are merged in slices, by the remainder of the value.
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
    return torch.from_numpy(ids).t().contiguous().numpy()  # numpy's own copy takes several times as long
