"""The fuzz run in short, and that its judge sees what it is there to see."""

import random
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.data import cache_dir
from harness.errors import UserError
from tests.fuzz.__main__ import formats, fuzz, main, summary
from tests.fuzz.damages import DAMAGES
from tests.fuzz.formats import Format
from tests.fuzz.runner import FAULT, READING, REFUSAL, Outcome, run_case, same

CASES = 60


def write(folder: Path, rng: random.Random) -> Path:
    path = folder / "numbers.txt"
    path.write_text("1.5 2.5\n" * 5)
    return path


def read(path: Path) -> np.ndarray:
    """A reader that is right: it refuses what are no rows of two finite numbers."""
    try:
        found = np.array([[float(word) for word in line.split()] for line in path.read_text().splitlines()])
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error})") from error
    if found.ndim != 2 or found.shape[1] != 2 or not np.isfinite(found).all():
        raise UserError(f"{path} has no rows of two numbers")
    return found


def outcomes(reader, count: int = 60, limit: float = 30.0) -> list[Outcome]:
    return [run_case("numbers", Format(write, reader), seed, limit) for seed in range(count)]


def kinds(found: list[Outcome]) -> set[str]:
    return {outcome.kind for outcome in found}


def messages(found: list[Outcome]) -> str:
    return "\n".join(outcome.message for outcome in found if outcome.kind == FAULT)


def test_every_format_ends_in_readings_and_refusals_alone(capsys):
    found = fuzz(formats(), seed=0, count=CASES)
    assert kinds(found) == {READING, REFUSAL}, capsys.readouterr().out
    assert {outcome.format for outcome in found} == set(formats())


def test_a_reader_that_is_right_has_no_fault_and_every_damage_is_tried():
    found = outcomes(read, 200)
    assert kinds(found) == {READING, REFUSAL}
    assert {outcome.damage.split()[0] for outcome in found} == set(DAMAGES)
    assert all(outcome.kind == READING for outcome in found if outcome.damage.startswith("none"))


def test_a_traceback_is_a_fault_that_names_its_line():
    found = outcomes(lambda path: np.loadtxt(path, ndmin=2))
    assert FAULT in kinds(found)
    assert "Error: " in messages(found)


def test_a_number_that_is_not_finite_is_a_fault():
    def careless(path: Path) -> object:
        try:
            return {"rows": [torch.tensor(float(word)) for word in path.read_text().split()]}
        except (OSError, ValueError) as error:
            raise UserError("no numbers") from error

    assert "is not finite" in messages(outcomes(careless, 200))


def test_a_reading_that_differs_between_equal_files_is_a_fault():
    draws = iter(range(10**6))
    assert "read as something else" in messages(outcomes(lambda path: read(path) * 0 + next(draws)))


def test_a_reader_that_writes_or_leaves_half_of_a_file_is_a_fault():
    def writer(path: Path) -> np.ndarray:
        found = read(path)
        path.write_text("3 4\n")
        return found

    def leaver(path: Path) -> np.ndarray:
        (cache_dir() / "rows.tmp").write_text("")
        return read(path)

    assert "changed the files" in messages(outcomes(writer, 1))
    assert "left rows.tmp in the cache" in messages(outcomes(leaver, 1))


def test_a_case_that_takes_too_long_is_a_fault_even_in_a_reader_that_catches_everything():
    def slow(path: Path) -> None:
        while True:
            try:
                time.sleep(60)
            except Exception:
                continue

    assert messages(outcomes(slow, 1, limit=0.2)) == "took more than 0.2 seconds"


def test_a_refusal_without_a_word_is_a_fault():
    def mute(path: Path) -> None:
        raise UserError("")

    assert kinds(outcomes(mute, 1)) == {FAULT}


def test_a_case_is_decided_by_its_seed():
    first, again = (outcomes(read, 40) for _ in range(2))
    assert [(one.kind, one.damage) for one in first] == [(one.kind, one.damage) for one in again]


def test_the_command_counts_by_format_says_how_to_repeat_a_fault_and_leaves_with_1(capsys, monkeypatch):
    def broken(path: Path) -> None:
        raise ZeroDivisionError("by zero")

    known = {"good": Format(write, read), "bad": Format(write, broken)}
    monkeypatch.setattr("tests.fuzz.__main__.formats", lambda: known)
    assert main(["--seed", "4", "--count", "5"]) == 1
    printed = capsys.readouterr().out
    assert "repeat: python -m tests.fuzz --seed 5 --count 1 --formats bad" in printed
    assert printed.splitlines()[-1].split()[0] == "all"
    assert [int(number) for number in printed.splitlines()[-3].split()[1:]] == [0, 0, 2]
    assert main(["--count", "3", "--formats", "good"]) == 0
    with pytest.raises(SystemExit):
        main(["--formats", "ugly"])


def test_a_summary_adds_up():
    found = [Outcome(READING, "a", ""), Outcome(REFUSAL, "b", ""), Outcome(REFUSAL, "b", "")]
    assert [line.split() for line in summary(found).splitlines()] == [
        ["format", "readings", "refusals", "faults"],
        ["a", "1", "0", "0"],
        ["b", "0", "2", "0"],
        ["all", "1", "2", "0"],
    ]


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ({"a": torch.ones(2)}, {"a": torch.ones(2)}, True),
        ({"a": torch.ones(2)}, {"a": torch.zeros(2)}, False),
        ({"a": torch.ones(2)}, {"a": torch.ones(2).double()}, False),
        ([np.ones(2), "x"], [np.ones(2), "y"], False),
        ((1, 2), (1, 3), False),
        ((1, 2), [1, 2], False),
        (Outcome("a", "b", "c"), Outcome("a", "b", "d"), False),
        (Outcome("a", "b", "c"), Outcome("a", "b", "c"), True),
    ],
)
def test_readings_are_the_same_if_all_that_they_hold_is(one, other, equal):
    assert same(one, other) is equal
