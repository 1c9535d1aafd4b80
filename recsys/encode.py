"""From values to category ids: binning of numbers, vocabularies, and the encoder that a run keeps.

A value becomes a key, a 64-bit number: the bin of a number, or the text of a category itself (its eight bytes; longer
text is hashed). The vocabulary of a field lists the keys seen at least `min_count` times, the most frequent first and
equally frequent ones by key; key number i of the list has id i + 1. All others have id 0. Missing is a key like any
other. The ids depend on the counts alone, so the same file gives the same ids on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from harness.errors import UserError
from recsys.blocks import Block, header_names
from recsys.formats import RowFormat, Rule, listed
from recsys.rows import Malformed, parse, read_text

MISSING = int(np.iinfo(np.int64).min)  # the key of a missing number
NO_TEXT = 0  # the key of a missing category
FEW = 10  # lines that hold labels by chance
FARTHEST = 2.0**62  # a bin whose number is larger does not fit its key
QUANTILES = 32  # bins of a field under Rule.QUANTILE, at most


def frame_values(frame: pl.DataFrame, fields: Sequence[tuple[str, Rule]]) -> list[np.ndarray]:
    """The fields' columns as numbers to look up, each ``[n]``.

    Text becomes keys, int64: equal for equal text, 0 for the empty one. Text of up to eight ASCII characters is its own
    key; for any other the chance that two of a million share one is about 3e-8. Numbers stay what they are, float64,
    NaN if missing. All columns go through polars at once, because every call of it takes a millisecond.
    """
    texts = [name for name, rule in fields if rule is Rule.CATEGORY]
    shortest = frame.select(pl.col(name).str.len_bytes().min() for name in texts)
    padded = [pl.col(name) if shortest[name][0] == 8 else pl.col(name).str.pad_end(8, "\0") for name in texts]
    keys = [text.cast(pl.Binary).bin.reinterpret(dtype=pl.Int64, endianness="big") for text in padded]
    numbers = [pl.col(name).fill_null(float("nan")) + 0.0 for name, rule in fields if rule is not Rule.CATEGORY]
    values = frame.select(*keys, *numbers)  # + 0.0: -0 and 0 are one value
    return [_hashed(values[name], frame[name]).to_numpy() for name, _ in fields]


def _hashed(keys: pl.Series, texts: pl.Series) -> pl.Series:
    """Keys with those of longer text filled in."""
    if not keys.null_count():
        return keys
    others = texts.filter(keys.is_null()).unique()
    hashed = [_hash(text) for text in others]
    return keys.fill_null(texts.replace_strict(others, hashed, default=None, return_dtype=pl.Int64))


def _hash(text: str) -> int:
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def bin_keys(values: np.ndarray, rule: Rule, edges: np.ndarray) -> np.ndarray:
    """The keys of numbers, int64 ``[n]``.

    Args:
        values: float64 ``[n]``; NaN is missing.
        rule: ln2, log2 or quantile.
        edges: Where the bins of `Rule.QUANTILE` begin, increasing, without the first one; a value on an edge
            belongs to the bin above it.

    Example:
        >>> bin_keys(np.array([-1.0, 0, 1, 2, 3, 4, 100]), Rule.LN2, np.array([])).tolist()
        [-3, -2, -1, 0, 1, 1, 21]
        >>> bin_keys(np.array([-1.0, 0, 1, 2, 3, 4, 100]), Rule.LOG2, np.array([])).tolist()
        [1, 1, 1, 1, 1, 2, 6]
    """
    missing = np.isnan(values)
    values = np.where(missing, 0.0, values)
    large = np.maximum(values, 3.0)  # the logarithms are taken above 2 only
    if rule is Rule.LN2:
        bins = np.where(values > 2, np.floor(np.log(large) ** 2), values - 2)
    elif rule is Rule.LOG2:
        bins = np.where(values > 2, np.frexp(large)[1] - 1, 1)  # frexp, because it is exact at powers of two
    else:
        bins = np.searchsorted(edges, values, side="right")
    return np.where(missing, MISSING, np.clip(bins, -FARTHEST, FARTHEST).astype(np.int64))


def quantile_edges(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Where the bins of `Rule.QUANTILE` begin, for values that were seen `counts` times; NaN is left out."""
    known = ~np.isnan(values)
    if not known.any():
        return np.zeros(0)
    shares = np.arange(1, QUANTILES) / QUANTILES
    return np.unique(np.quantile(values[known], shares, weights=counts[known], method="inverted_cdf"))


@dataclass(frozen=True, eq=False)
class FieldEncoder:
    """The vocabulary of one field."""

    name: str
    rule: Rule
    edges: np.ndarray  # float64, bins of Rule.QUANTILE; else empty
    keys: np.ndarray  # int64, the key of id 1, 2, ...

    @property
    def size(self) -> int:
        """Number of ids, 0 included."""
        return len(self.keys) + 1

    def ids(self, values: np.ndarray) -> np.ndarray:
        """Ids of values as `frame_values` gives them, int32 ``[n]``."""
        keys = values if self.rule is Rule.CATEGORY else bin_keys(values, self.rule, self.edges)
        ordered, ids = self._ordered
        if not len(ordered):
            return np.zeros(len(keys), dtype=np.int32)
        place = np.minimum(np.searchsorted(ordered, keys), len(ordered) - 1)
        return np.where(ordered[place] == keys, ids[place], np.int32(0))

    @cached_property
    def _ordered(self) -> tuple[np.ndarray, np.ndarray]:
        """The keys in increasing order, and their ids."""
        order = np.argsort(self.keys)
        return self.keys[order], (order + 1).astype(np.int32)


def make_field(name: str, rule: Rule, values: np.ndarray, counts: np.ndarray, min_count: int) -> FieldEncoder:
    """The vocabulary of a field whose values, as `frame_values` gives them, were seen `counts` times."""
    edges = quantile_edges(values, counts) if rule is Rule.QUANTILE else np.zeros(0)
    keys = values if rule is Rule.CATEGORY else bin_keys(values, rule, edges)
    keys, counts = summed(keys, counts)
    order = np.lexsort((keys, -counts))
    return FieldEncoder(name, rule, edges, keys[order][counts[order] >= min_count])


def summed(keys: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different keys in increasing order, and the counts of each added up, both int64."""
    different, place = np.unique(keys, return_inverse=True)
    totals = np.bincount(place, weights=counts, minlength=len(different))  # as float64: exact up to 2 ** 53
    return different, totals.astype(np.int64)


@dataclass(frozen=True)
class Encoder:
    """Turns raw rows into category ids, as the rows a model was trained on were turned."""

    layout: RowFormat
    fields: tuple[FieldEncoder, ...]

    @property
    def field_dims(self) -> tuple[int, ...]:
        """Categories of each field, id 0 included."""
        return tuple(field.size for field in self.fields)

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits: equal for encoders that give equal ids, different for others."""
        digest = hashlib.sha256()
        for field in self.fields:
            edges, keys = field.edges.astype("<f8"), field.keys.astype("<i8")
            digest.update(f"{field.name}\0{field.rule}\0{len(edges)} {len(keys)}\0".encode())
            digest.update(edges.tobytes() + keys.tobytes())
        return digest.hexdigest()[:16]

    def encode_frame(self, frame: pl.DataFrame) -> np.ndarray:
        """Ids, int32 ``[n, F]``, of columns as `recsys.rows.parse` gives them."""
        ids = np.empty((len(frame), len(self.fields)), dtype=np.int32)
        values = frame_values(frame, [(field.name, field.rule) for field in self.fields])
        for place, field in enumerate(self.fields):
            ids[:, place] = field.ids(values[place])
        return ids

    def encode(self, lines: Iterable[str], origin: str = "the rows") -> Tensor:
        """Ids of raw lines, int32 ``[n, F]``, one row per line that is not blank; see `encode_block`."""
        text = "".join(line.rstrip("\r\n") + "\n" for line in lines).removeprefix("\ufeff")
        first, _, rest = text.partition("\n")
        if self.layout.header:
            layout = self.layout_of_header(*header_names(first, self.layout, origin), origin)
            return self.encode_block(Block(rest.encode(), 2), layout, origin)
        block = Block(text.encode(), 1)
        return self.encode_block(block, self.layout_of(block, origin), origin)

    def encode_block(self, block: Block, layout: RowFormat, origin: Path | str) -> Tensor:
        """Ids of a block of raw lines, int32 ``[n, F]``, one row per line that is not blank.

        A category that the vocabulary lacks has id 0. An empty column is a missing value. A line with too few columns
        is an error and not a row with missing values, because nobody can tell which ones are missing.

        Raises:
            UserError: a line has another number of columns, or a number or label that is none; it names the line.
        """
        rows = parse(block, layout)
        self.refuse(rows.malformed, origin)
        return torch.from_numpy(self.encode_frame(rows.frame))

    def refuse(self, malformed: Sequence[Malformed], origin: Path | str) -> None:
        """Raise `UserError` if there are any, about the first."""
        if malformed:
            bad, others = malformed[0], len(malformed) - 1
            more = f" ({others} more near it {'is' if others == 1 else 'are'} bad as well)" if others else ""
            raise UserError(f"{origin}, line {bad.line}: {bad.reason}{more}. {self.expected}.")

    @property
    def expected(self) -> str:
        """What a line should look like, for messages."""
        return (
            f"Each line should hold {len(self.fields)} fields ({listed(self.layout.names, 5)}), all with or all "
            f"without {self.layout.label}, separated by {self.layout.separator!r}; a missing value is an empty column"
        )

    def layout_of_header(self, names: Sequence[str], separator: str, origin: Path | str) -> RowFormat:
        """The format of a table of rows to predict, with these names in its header; a label is not needed, nor read."""
        return self.layout.with_header(names, origin, separator, labelled=False).label_skipped

    def layout_of(self, block: Block, origin: Path | str) -> RowFormat:
        """The format of raw lines without a header, by the first of them; a few hundred do.

        They have a label, which is not read, unless more of them have as many columns as a line without one.

        Raises:
            UserError: they seem to be lines with a label that lack their last column.
        """
        labelled, unlabelled = self.layout.label_skipped, self.layout.unlabelled
        if len(read_text(block, unlabelled)[1]) <= len(read_text(block, labelled)[1]):
            return labelled
        if self._lacks_last_column(block, unlabelled):
            raise UserError(
                f"{origin}: its lines have as many columns as lines without {self.layout.label}, but hold what lines "
                f"with {self.layout.label} and without {self.layout.columns[-1]} hold. {self.expected}."
            )
        return unlabelled

    def _lacks_last_column(self, block: Block, unlabelled: RowFormat) -> bool:
        """Whether lines that could be unlabelled are rather labelled ones without their last column.

        Their labels must be labels, and then more of their categories be known. Where none is known, ten labels and
        nothing else are no count.
        """
        short = replace(self.layout, columns=self.layout.columns[:-1])
        if self.layout.label not in short.columns or len(short.columns) != len(unlabelled.columns):
            return False
        labels = read_text(block, short)[0][self.layout.label]
        if not labels.is_in([*self.layout.clicks, *self.layout.misses]).all():
            return False
        so, otherwise = self._known(block, short), self._known(block, unlabelled)
        return so > otherwise or (so == otherwise and len(labels) >= FEW)

    def _known(self, block: Block, layout: RowFormat) -> int:
        """How many values of category fields in these lines are in the vocabulary; a missing one does not count."""
        fields = [field for field in self.fields if field.rule is Rule.CATEGORY and field.name in layout.columns]
        frame = read_text(block, layout)[0]
        values = frame_values(frame, [(field.name, field.rule) for field in fields])
        found = zip(fields, values, strict=True)
        return sum(int(((field.ids(value) > 0) & (value != NO_TEXT)).sum()) for field, value in found)

    def to_dict(self) -> dict[str, Any]:
        """The encoder as plain data: strings, numbers, lists, dictionaries."""
        fields = [
            {"name": field.name, "rule": str(field.rule), "edges": field.edges.tolist(), "keys": field.keys.tolist()}
            for field in self.fields
        ]
        return {"layout": self.layout.to_dict(), "fields": fields}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Encoder:
        """The encoder that `to_dict` gave."""
        fields = tuple(
            FieldEncoder(
                name=field["name"],
                rule=Rule(field["rule"]),
                edges=np.array(field["edges"], dtype=np.float64),
                keys=np.array(field["keys"], dtype=np.int64),
            )
            for field in data["fields"]
        )
        return cls(RowFormat.from_dict(data["layout"]), fields)
