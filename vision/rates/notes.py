"""What table `vision-rates` has found, and the note about it below a row's own table."""

from __future__ import annotations

from harness.methods import label
from tinydfa import Method

FACTORS = (0.1, 0.3, 1.0, 3.0)  # on the rate of a row's preset
# The factor of the lowest validation error, by row and method, of all that were run to the end.
BEST: dict[str, dict[Method, float]] = {
    "FC, tanh": {Method.BP: 3.0, Method.DFA: 3.0, Method.SHALLOW: 3.0},
    "CNN, tanh": {Method.BP: 3.0, Method.DFA: 3.0, Method.SHALLOW: 3.0},
    "LeNet, SGD": {Method.BP: 1.0, Method.DFA: 3.0},
    "CONV trained": {Method.BP: 3.0, Method.DFA: 3.0, Method.SHALLOW: 3.0},
}


def listed() -> str:
    """The factors, in words."""
    *others, last = (f"{factor:g}" for factor in FACTORS)
    return f"{', '.join(others)} and {last}"


def note_of(row: str) -> str:
    """The note about the learning rate of a row below its own table."""
    if row not in BEST:
        return (
            f"Whether the rate of {row} suits so few epochs is tried in table `vision-rates`, which lacks runs of it."
        )
    found = ", ".join(f"{factor:g} by {label(method)}" for method, factor in BEST[row].items())
    return (
        f"{row} after one epoch: of {listed()} times the rate the one with the lowest validation "
        f"error is {found} (table `vision-rates`). The row keeps the rate itself."
    )
