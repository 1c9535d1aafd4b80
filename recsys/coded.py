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
import polars as pl

from harness.files import write_whole
from recsys.encode import FieldEncoder, field_values, make_field
from recsys.formats import RowFormat, Rule
from recsys.rows import Block, Malformed, parse

EXAMPLES = 10  # malformed lines of a block that are remembered
AT_ONCE = 1 << 24  # dictionary entries merged at once: about 0.7 GB


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

        "codes": int32 ``[rows, F]``, places in the dictionary; "labels": uint8 ``[rows]``; "values": int64, the
        dictionary, all fields one after another (numbers by their bits); "counts": int32, how often each occurs.
        """
        array = np.load(f"{self.stem}.{part}.npy", mmap_mode=None if field is None else "r")
        return array if field is None else np.array(array[self.span(field)])

    def span(self, field: int) -> slice:
        """The part of the dictionary that belongs to a field."""
        return slice(self.ends[field - 1] if field else 0, self.ends[field])


def code_block(block: Block, layout: RowFormat, stem: str) -> CodedBlock:
    """Parse a block of text and write its coded form; return what was written, or what an earlier run wrote."""
    earlier = _finished(stem)
    if earlier is not None:
        return earlier
    rows = parse(block, layout)
    codes = np.empty((len(rows.frame), len(layout.fields)), dtype=np.int32)
    values, counts, ends, end = [], [], [], 0
    for place, (name, rule) in enumerate(layout.fields):
        # Numbers go by their bits: sorting those is as good as any order, and all missing ones have the same.
        column = np.ascontiguousarray(field_values(rows.frame[name], rule)).view(np.int64)
        unique, inverse, count = np.unique(column, return_inverse=True, return_counts=True)
        codes[:, place] = inverse + end
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
        np.save(f"{stem}.{part}.npy", array)
    sizes = {part: Path(f"{stem}.{part}.npy").stat().st_size for part in arrays}
    coded = CodedBlock(stem, len(codes), ends, sizes, len(rows.malformed), rows.malformed[:EXAMPLES])
    write_whole(Path(f"{stem}.json"), json.dumps(asdict(coded)), "Free some space, or set TINYDFA_CACHE to a folder")
    return coded


def _finished(stem: str) -> CodedBlock | None:
    """The block that an interrupted run left, if it is whole."""
    try:
        found = json.loads(Path(f"{stem}.json").read_text(encoding="utf-8"))
        coded = CodedBlock(**found | {"malformed": [Malformed(**bad) for bad in found["malformed"]], "stem": stem})
        whole = all(Path(f"{stem}.{part}.npy").stat().st_size == size for part, size in coded.sizes.items())
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
        parts = []
        for block, part in blocks:
            seen = pl.DataFrame({"value": block.load("values", field), "count": _counts(block, field, part)})
            parts.append(seen.filter((pl.col("value") % slices == remainder) & (pl.col("count") > 0)))
        seen = pl.concat(parts).group_by("value").agg(pl.col("count").cast(pl.Int64).sum())
        seen = seen.filter(pl.col("count") >= min_count)
        yield seen["value"].to_numpy(), seen["count"].to_numpy()


def _counts(block: CodedBlock, field: int, part: np.ndarray) -> np.ndarray:
    """How often each entry of a field's dictionary occurs in the rows of part 0."""
    if not part.any():
        return block.load("counts", field)
    span = block.span(field)
    codes = block.load("codes")[part == 0, field] - span.start
    return np.bincount(codes, minlength=span.stop - span.start).astype(np.int32)


def translate(block: CodedBlock, fields: Sequence[FieldEncoder]) -> np.ndarray:
    """The ids of a block's rows, int32 ``[rows, F]``."""
    tables = []
    for place, field in enumerate(fields):
        values = block.load("values", place)
        tables.append(field.ids(values if field.rule is Rule.CATEGORY else values.view(np.float64)))
    table = np.concatenate(tables)
    return table[block.load("codes")] if len(table) else block.load("codes")
