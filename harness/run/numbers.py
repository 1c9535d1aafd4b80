"""Numbers that a run logs, the names of alignment curves, and the check that a loss is finite."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeVar

from harness.errors import NonFiniteLoss

T = TypeVar("T")
ALIGNMENT = "alignment "  # begins the name of a curve of the cosine with backpropagation at a feedback point


def check_loss(loss: float, step: int, hint: str = "Lower the learning rate") -> None:
    """Raise `NonFiniteLoss` if `loss` is infinite or not a number."""
    if not math.isfinite(loss):
        raise NonFiniteLoss(f"the loss is {loss} at step {step}: training diverged. {hint}.")


def number_of(name: str, value: Any) -> float | int:
    """A Python number out of a number, a 0-d array or a 0-d tensor."""
    try:
        number = value.item() if hasattr(value, "item") else value
        float(number)
        if isinstance(number, int | float):
            return number
    except (TypeError, ValueError, RuntimeError, OverflowError):  # libraries raise different types
        pass
    raise TypeError(f"{name} is {value!r:.60}, and a run logs numbers: use float(), and one name for each number")


class Measured(Protocol):
    """What `tinydfa.measure_alignment` finds at one place."""

    @property
    def mean(self) -> float:
        """The cosine."""


def at_points(found: Mapping[str, Measured], points: Iterable[str]) -> dict[str, float]:
    """The mean alignment at each feedback point; a point that got no gradient is left out.

    Example:
        >>> from types import SimpleNamespace
        >>> at_points({"a": SimpleNamespace(mean=0.5), "a.weight": SimpleNamespace(mean=0.1)}, ["a", "b"])
        {'a': 0.5}
    """
    return {point: found[point].mean for point in points if point in found}


def by_curve(cosines: Mapping[str, T], network: str = "") -> dict[str, T]:
    """Rename alignments, given by feedback point, to the names of their curves.

    Args:
        cosines: By the name of the point.
        network: The network that the points are of, where a model has several.

    Example:
        >>> by_curve({"points.0": 0.5}), by_curve({"points.0": 0.5}, "coarse")
        ({'alignment points.0': 0.5}, {'alignment coarse points.0': 0.5})
    """
    return {f"{ALIGNMENT}{network} {point}" if network else ALIGNMENT + point: of for point, of in cosines.items()}


def alignments(curves: Mapping[str, T]) -> dict[str, T]:
    """The entries of curves or metrics that are alignments at a feedback point, in their order.

    Example:
        >>> alignments({"train_loss": [2.0], "alignment points.0": [0.5], "alignment_step": [10]})
        {'alignment points.0': [0.5]}
    """
    return {name: value for name, value in curves.items() if name.startswith(ALIGNMENT)}
