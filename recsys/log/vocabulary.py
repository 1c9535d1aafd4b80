"""From values to category ids: binning of numbers, and the vocabulary of each field.

A value becomes a key, a 64-bit number: the bin of a number, or the text of a category (up to eight bytes as they are;
longer text is hashed). The vocabulary of a field lists the keys seen at least `min_count` times, by decreasing
frequency, ties by key. Key i of the list has id i + 1; all other keys have id 0. A missing value has a key, too. The
ids depend on the counts alone, so a file gives the same ids on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from recsys.log.formats import Rule

MISSING = int(np.iinfo(np.int64).min)  # the key of a missing number
NO_TEXT = 0  # the key of a missing category
FARTHEST = 2.0**62  # a bin whose number is larger does not fit its key
QUANTILES = 32  # bins of a field under Rule.QUANTILE, at most


def frame_values(frame: pl.DataFrame, fields: Sequence[tuple[str, Rule]]) -> list[np.ndarray]:
    """The fields' columns as numbers to look up, each ``[n]``.

    Text becomes keys, int64: equal for equal text, 0 for empty text. Text of up to eight ASCII characters is the key
    itself; for any other, the probability that two of a million share a key is about 3e-8. Numbers remain float64, NaN
    if missing. All columns are converted in one polars call, because a call takes a millisecond.
    """
    texts = [name for name, rule in fields if rule is Rule.CATEGORY]
    shortest = frame.select(pl.col(name).str.len_bytes().min() for name in texts)
    padded = [pl.col(name) if shortest[name][0] == 8 else pl.col(name).str.pad_end(8, "\0") for name in texts]
    keys = [text.cast(pl.Binary).bin.reinterpret(dtype=pl.Int64, endianness="big") for text in padded]
    numbers = [pl.col(name).fill_null(float("nan")) + 0.0 for name, rule in fields if rule is not Rule.CATEGORY]
    values = frame.select(*keys, *numbers)  # + 0.0: -0 and 0 are one value
    return [_hashed(values[name], frame[name]).to_numpy() for name, _ in fields]


def _hashed(keys: pl.Series, texts: pl.Series) -> pl.Series:
    """Keys, with those of longer text filled in."""
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
        edges: Lower ends of the bins of `Rule.QUANTILE`, increasing, without that of the first bin. A value on an edge
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
    """Lower ends of the bins of `Rule.QUANTILE` for values with these counts; NaN is ignored."""
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
    """The vocabulary of a field from its values, as `frame_values` gives them, and their counts."""
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
