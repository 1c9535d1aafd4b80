"""The choice of what a pass keeps, and what one attachment has learned about its model under it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tinydfa.memory.second_run import Layout

REPLAY, FORWARD = "replay", "forward"
Choice = str | int | None


class Kept:
    """The choice in force on one attachment, and what it has learned about the model.

    Args:
        choice: ``"replay"``, ``"forward"``, or a number of bytes.

    Attributes:
        budget: Bytes of graphs that are kept, from the top down.
        in_forward: Blocks get their gradients in the forward pass where the rule allows it.
        layout: What the pass before looked like.
    """

    def __init__(self, choice: str | int) -> None:
        self.choice = choice
        self.budget = choice if isinstance(choice, int) else 0
        self.in_forward = choice == FORWARD
        self.layout: Layout | None = None
        self.asking = 0  # which parameters asked for a gradient in it
        self.trained: list[tuple[Tensor, int, int]] = []  # weights with the place and version of their gradients
        self.changing: dict[int, list[str]] = {}  # names of buffers that a pass changes, by which modules train

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"layout": None, "trained": []}  # a copy learns for itself
