"""Raw logs for the tests, and how they should come out: written with csv, Counter and math alone."""

import csv
import math
import random
from collections import Counter
from pathlib import Path

INTEGERS = 13
CATEGORIES = 26


def raw_rows(count: int, seed: int = 0) -> list[list[str]]:
    """Rows of the Kaggle format, as columns of text, with missing values, negative numbers and rare categories."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        integers = ["" if draw.random() < 0.2 else str(int(math.exp(draw.gauss(2, 2))) - 2) for _ in range(INTEGERS)]
        categories = []
        for field in range(CATEGORIES):
            rank = int((4 + 10 * field) ** draw.random())
            long = "-and-a-tail" if field % 5 == 4 else ""
            categories.append("" if draw.random() < 0.1 else f"{rank * 2654435761 % 2**32:08x}"[: 8 - field % 3] + long)
        rows.append([str(int(draw.random() < 0.3)), *integers, *categories])
    return rows


def write_rows(path: Path, rows: list[list[str]], separator: str = "\t") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(separator.join(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_rows(path: Path, separator: str = "\t") -> list[list[str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter=separator, quoting=csv.QUOTE_NONE))


def ln2(text: str) -> str:
    if text == "":
        return "missing"
    value = int(text)
    return str(int(math.log(value) ** 2) if value > 2 else value - 2)


def log2(text: str) -> str:
    if text == "":
        return "missing"
    value = int(text)
    return str(value.bit_length() - 1 if value > 2 else 1)


def vocabularies(tokens: list[list[str]], min_count: int) -> list[dict[str, int]]:
    """Per column, how often each token occurs at least `min_count` times: from the most to the least frequent."""
    columns = zip(*tokens, strict=True)
    return [{token: n for token, n in Counter(column).most_common() if n >= min_count} for column in columns]


def check_ids(ids: list[list[int]], tokens: list[list[str]], known: list[dict[str, int]]) -> None:
    """Assert that ids are those of the tokens: 0 for an unknown one; else one per token, frequent ones first."""
    for field, counts in enumerate(known):
        pairs = {(row[field], each[field]) for row, each in zip(tokens, ids, strict=True)}
        given = {token: number for token, number in pairs if token in counts}
        assert len(given) == len({token for token, _ in pairs if token in counts})
        assert all(number == 0 for token, number in pairs if token not in counts)
        assert len(set(given.values()) - {0}) == len(given)
        assert all(1 <= number <= len(counts) for number in given.values())
        frequencies = [counts[token] for token in sorted(given, key=lambda token: given[token])]
        assert frequencies == sorted(frequencies, reverse=True)
