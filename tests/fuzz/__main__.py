"""Damage small valid inputs of every format that the project reads, and see what the readers make of them.

    python -m tests.fuzz --seed 0 --count 1000

Case n has the seed `seed + n`, which decides everything about it. It ends in a reading, or in a refusal: an error of
the user's kind, which a command prints as one line with exit status 2. Anything else is a fault: another exception, a
case that takes too long, a number that is not finite, the same files read as something else, a file changed or left
half-written. Status 1 if there is one.
"""

import argparse
import faulthandler
import importlib
import sys
from collections import Counter
from collections.abc import Mapping, Sequence

from tests.fuzz.formats import Format
from tests.fuzz.runner import FAULT, LIMIT, READING, REFUSAL, Outcome, run_case

MODULES = ("scenes", "tables", "images", "texts", "graphs", "runs")


def formats() -> dict[str, Format]:
    """All formats by name."""
    found = [importlib.import_module(f"tests.fuzz.{name}").FORMATS for name in MODULES]
    return {name: known[name] for known in found for name in known}


def fuzz(known: Mapping[str, Format], seed: int, count: int, limit: float = LIMIT) -> list[Outcome]:
    """The outcomes of `count` cases, the formats in turns. Faults are printed as they come, with how to repeat them."""
    names, outcomes = list(known), []
    for number in range(seed, seed + count):
        name = names[number % len(names)]
        # Where even the time limit cannot stop a library: leave, and say where.
        faulthandler.dump_traceback_later(10 * limit, exit=True, file=sys.__stderr__)
        outcomes.append(outcome := run_case(name, known[name], number, limit))
        faulthandler.cancel_dump_traceback_later()
        if outcome.kind == FAULT:
            print(f"fault in {name}, {outcome.damage}: {' '.join(outcome.message.split())}")
            print(f"  repeat: python -m tests.fuzz --seed {number} --count 1 --formats {name}", flush=True)
    return outcomes


def summary(outcomes: Sequence[Outcome]) -> str:
    """A line a format: its readings, refusals and faults."""
    counts = Counter((outcome.format, outcome.kind) for outcome in outcomes)
    names = sorted({outcome.format for outcome in outcomes})
    lines = [f"{'format':<20}{'readings':>10}{'refusals':>10}{'faults':>10}"]
    for name in [*names, "all"]:
        of_name = (
            sum(number for (format_, kind), number in counts.items() if kind == wanted and name in (format_, "all"))
            for wanted in (READING, REFUSAL, FAULT)
        )
        lines.append(f"{name:<20}" + "".join(f"{number:>10}" for number in of_name))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="of the first case")
    parser.add_argument("--count", type=int, default=1000, help="cases")
    parser.add_argument("--formats", nargs="*", help="these alone, by name; all if left out")
    given = parser.parse_args(arguments)
    known = formats()
    if unknown := set(given.formats or ()) - set(known):
        parser.error(f"no such format: {', '.join(sorted(unknown))}. There are {', '.join(known)}.")
    outcomes = fuzz({name: known[name] for name in given.formats or known}, given.seed, given.count)
    print(summary(outcomes))
    return int(any(outcome.kind == FAULT for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
