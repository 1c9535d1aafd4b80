"""Numbers that a run logs, and the loss that ends it."""

import math
from typing import Any

from harness.errors import NonFiniteLoss


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
    except (TypeError, ValueError, RuntimeError, OverflowError):  # as many kinds as there are libraries
        pass
    raise TypeError(f"{name} is {value!r:.60}, and a run logs numbers: use float(), and one name for each number")
