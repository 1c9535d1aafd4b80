"""A synthetic click log, drawn from a known teacher model and written in the raw Criteo format.

Categories follow Zipf's law, counts are log-normal. The teacher is a logistic model. The values of some fields have
main effects. Pairs of fields have interactions that average to zero over either field, so that no sum over single
fields can express them. Some categories decide the slope of a count. Clicks are drawn from the teacher's probabilities,
so on average nothing ranks them better than the teacher, whose AUC is the best possible. The effects were chosen so
that, with 40,000 rows, a sum over fields reaches a test AUC of about 0.68, a network 0.81, and the teacher 0.86. This
is not a sample of any real data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

ROWS = 40_000
CLICK_RATE = 0.25
AT_ONCE = 20_000  # rows drawn from one generator, so that a longer log begins with the rows of a shorter one

# Values that a field can take: some fields have few, some very many, as in Criteo, on a smaller scale.
CARDINALITIES = (
    *(120, 60, 900, 500, 40, 24, 150, 80, 3, 400, 130, 700, 90),
    *(27, 200, 600, 10, 110, 70, 4, 800, 18, 15, 300, 40, 250),
)
TABLE = 4096  # distinct effects of a field; rarer values reuse them
COUNTS = 13  # fields of counts
MISSING_COUNTS = (0.45, 0, 0.2, 0.2, 0, 0.2, 0, 0, 0, 0.45, 0, 0.75, 0.2)  # share of missing values
MISSING_CATEGORIES = {3: 0.05, 11: 0.05, 18: 0.4, 21: 0.75, 24: 0.4}
ALONE = (0, 4, 5, 8, 13, 16, 19, 22, 24)  # categories with a main effect
PAIRS = (
    (5, 13),
    (5, 16),
    (5, 22),
    (8, 13),
    (8, 22),
    (13, 16),
    (16, 22),
    (19, 22),
    (13, 19),
)  # categories that interact
SLOPES = ((1, 5), (4, 22), (6, 13), (8, 16))  # a count, and the category that decides its slope
RANK = 2  # of the interactions
MAIN, PAIR, SLOPE = 0.4, 0.5, 0.2  # standard deviations of the effects


@dataclass(frozen=True)
class Teacher:
    """The model that clicks are drawn from."""

    main: tuple[np.ndarray, ...]  # per field of `ALONE`, the effect of each value
    pairs: tuple[np.ndarray, ...]  # per pair of fields, [values of one, values of the other]
    slopes: tuple[np.ndarray, ...]  # per count, the slope for each value of its category
    offset: float  # set to give the click rate
    sizes: tuple[int, ...]  # values each category field can take


def make_teacher(seed: int, sizes: tuple[int, ...] = CARDINALITIES) -> Teacher:
    """Draw a teacher; its offset is set by bisection so that a separate sample has `CLICK_RATE`."""
    generator = np.random.default_rng([20062, seed])
    known = [min(size, TABLE) for size in sizes]
    main = tuple(MAIN * _centred(_normal(generator, known[field])) for field in ALONE)
    traits = [_centred(_normal(generator, RANK, size)) for size in known]
    pairs = tuple(PAIR * traits[one].T @ traits[other] / RANK**0.5 for one, other in PAIRS)
    slopes = tuple(SLOPE * _centred(_normal(generator, known[category])) for _, category in SLOPES)
    teacher = Teacher(main, pairs, slopes, 0.0, sizes)
    logits = teacher_logits(teacher, *_draw_values(np.random.default_rng([20063, seed]), sizes))
    low, high = -20.0, 20.0
    for _ in range(50):
        offset = (low + high) / 2
        low, high = (low, offset) if _sigmoid(logits + offset).mean() > CLICK_RATE else (offset, high)
    return Teacher(main, pairs, slopes, offset, sizes)


def teacher_logits(teacher: Teacher, counts: np.ndarray, categories: np.ndarray) -> np.ndarray:
    """The log odds of a click, ``[n]``, for counts ``[n, 13]`` (NaN if missing) and categories ``[n, 26]`` (-1)."""
    table = np.where(categories >= 0, categories % TABLE, 0)
    logits = np.full(len(counts), teacher.offset)
    for field, effect in zip(ALONE, teacher.main, strict=True):
        logits += np.where(categories[:, field] >= 0, effect[table[:, field]], 0.0)
    for (one, other), effect in zip(PAIRS, teacher.pairs, strict=True):
        known = (categories[:, one] >= 0) & (categories[:, other] >= 0)
        logits += np.where(known, effect[table[:, one], table[:, other]], 0.0)
    for (count, category), slope in zip(SLOPES, teacher.slopes, strict=True):
        height = np.log1p(np.maximum(np.nan_to_num(counts[:, count]), 0.0)) - 2.0
        logits += np.where(categories[:, category] >= 0, slope[table[:, category]] * height, 0.0)
    return logits


def draw_log(rows: int, seed: int, sizes: tuple[int, ...] = CARDINALITIES) -> Iterator[tuple[pl.DataFrame, np.ndarray]]:
    """The log in pieces: columns of text, with the teacher's probabilities ``[n]``."""
    teacher = make_teacher(seed, sizes)
    for number in range(-(-rows // AT_ONCE)):
        generator = np.random.default_rng([20064, seed, number])
        counts, categories = _draw_values(generator, sizes)
        chance = _sigmoid(teacher_logits(teacher, counts, categories))
        clicks = generator.random(AT_ONCE) < chance
        here = min(AT_ONCE, rows - number * AT_ONCE)
        yield _as_text(clicks[:here], counts[:here], categories[:here]), chance[:here]


def write_log(path: Path, rows: int, seed: int, sizes: tuple[int, ...] = CARDINALITIES) -> np.ndarray:
    """Write a log of `rows` rows; return the teacher's probability of a click for each, float64 ``[rows]``."""
    chances = []
    with open(path, "wb") as file:
        for frame, chance in draw_log(rows, seed, sizes):
            frame.write_csv(file, include_header=False, separator="\t", quote_style="never")
            chances.append(chance)
    return np.concatenate(chances)


def _draw_values(generator: np.random.Generator, sizes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """`AT_ONCE` rows: counts, NaN if missing, and categories by rank (0 is the most frequent), -1 if missing."""
    spread = np.linspace(0.8, 2.0, COUNTS)
    counts = np.floor(np.exp(_normal(generator, AT_ONCE, COUNTS) * spread + 1.5)) - 1.0
    counts[generator.random(counts.shape) < np.array(MISSING_COUNTS)] = np.nan
    # Log-uniform: the value of rank k is drawn about as often as 1 / k.
    uniform = generator.random((AT_ONCE, len(sizes)))
    categories = np.floor(np.array(sizes, dtype=np.float64) ** uniform).astype(np.int64) - 1
    for field, share in MISSING_CATEGORIES.items():
        categories[generator.random(AT_ONCE) < share, field] = -1
    return counts, categories


def _as_text(clicks: np.ndarray, counts: np.ndarray, categories: np.ndarray) -> pl.DataFrame:
    """Columns of text as Criteo writes them: whole numbers, and categories as eight hexadecimal digits."""
    digits = pl.Series([f"{number:04x}" for number in range(1 << 16)])
    columns = {"label": pl.Series(clicks.astype(np.int8))}
    for field in range(counts.shape[1]):
        values = counts[:, field]
        columns[f"I{field + 1}"] = pl.Series(values).fill_nan(None).cast(pl.Int64)
    for field in range(categories.shape[1]):
        rank = categories[:, field]
        code = (rank * 2654435761 + (field + 1) * 40503 * 65537) % (1 << 32)  # odd factor: no two ranks share a code
        text = digits.gather(code >> 16) + digits.gather(code & 0xFFFF)
        columns[f"C{field + 1}"] = text.set(pl.Series(rank < 0), None)
    return pl.DataFrame(columns)


def _normal(generator: np.random.Generator, *shape: int) -> np.ndarray:
    """Standard normal numbers by inversion of uniform ones, so that they do not depend on numpy's method."""
    from scipy.special import ndtri

    return ndtri(generator.random(shape))


def _centred(effects: np.ndarray) -> np.ndarray:
    """Effects, shifted to have mean zero over the last axis under Zipf's law."""
    weight = 1.0 / np.arange(1, effects.shape[-1] + 1)
    return effects - (effects * weight).sum(axis=-1, keepdims=True) / weight.sum()


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))
