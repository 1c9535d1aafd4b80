"""Feedback that is fitted to backpropagation: every so many passes the best linear guess of its signals is solved for.

    fitted    C <- memory C + eᵀe,  R <- memory R + eᵀδ,  F = (C + ridge tr(C)/c I)⁻¹ R        ours

Here e ``[R, c]`` is the error that reaches each row of a point and δ ``[R, d]`` what backpropagation brings to it in
an exact pass, which trains by it. In the sense of least squares, ``e @ F`` is the linear function of e that is nearest
to δ. A factor on the loss cancels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tinydfa.errors import ShapeError
from tinydfa.rules.learned import Learning, Seen
from tinydfa.rules.options import positive, share, whole

WIDEST = 4096  # c of the largest C: two matrices of 128 MiB for each point, and a solve of some seconds


@dataclass(frozen=True, repr=False)
class Fitted(Learning):
    """The F for which ``e @ F`` is nearest to backpropagation's signal, fitted in one exact pass of many.

    Args:
        exact_every: The first and every so-manieth training pass is one of backpropagation, and F is fitted to it.
        memory: What is left of the moments C and R of the passes before. 0: each fit is of one pass alone.
        ridge: Of the solve, as a share of the mean diagonal entry of C.
        rows: Most rows of a point that are looked at, drawn anew in each exact pass. 0: all.

    Raises:
        OptionError: an option makes no sense.
    """

    name = "fitted"
    label = "Fitted"
    colour = "#332288"
    explained = (
        "F is the linear map from the error to backpropagation's signals that fits a rare pass of backpropagation best."
    )
    source = "tinydfa"
    feels_loss_scale = False

    every: ClassVar[int] = 0
    exact_every: int = 100  # type: ignore[misc]
    memory: float = 0.9
    ridge: float = 1e-3
    rows: int = 4096  # type: ignore[misc]

    def __post_init__(self) -> None:
        whole(self, "exact_every", self.exact_every, least=1)
        whole(self, "rows", self.rows, least=0)
        share(self, "memory", self.memory)
        positive(self, "ridge", self.ridge)

    def check_width(self, outputs: int) -> None:
        refuse_vocabulary(self, outputs)

    def moments(self, seen: Seen) -> dict[str, Tensor]:
        assert seen.gradient is not None
        error = seen.error.double()
        return {"errors": error.T @ error, "both": error.T @ seen.gradient.double()}

    def update(self, feedback: Tensor, moments: dict[str, Tensor], memory: dict[str, Tensor]) -> None:
        remember(memory, moments, self.memory)
        solve_into(feedback, memory, self.ridge)


def refuse_vocabulary(rule: Learning, outputs: int) -> None:
    """Refuse an error too wide to solve for."""
    if outputs > WIDEST:
        raise ShapeError(
            f"{rule} solves for its feedback by a matrix as wide as the error is, and this one has {outputs} numbers, "
            f"a vocabulary perhaps; {WIDEST} is the most. Take the error below the last layer "
            "(attach(..., output=...)), or use fdfa, which solves nothing."
        )


def remember(memory: dict[str, Tensor], moments: dict[str, Tensor], share: float) -> None:
    """Add moments to what is left of those before."""
    for name, moment in moments.items():
        memory[name] = share * memory[name] + moment if name in memory else moment


def solve_into(feedback: Tensor, memory: dict[str, Tensor], ridge: float) -> None:
    """Make `feedback` the solution of the moments remembered; as it is where they are 0."""
    solution = ridge_solution(memory["errors"], memory["both"], ridge)
    if solution is not None:
        feedback.copy_(solution)


def ridge_solution(gram: Tensor, both: Tensor, ridge: float) -> Tensor | None:
    """``(C + ridge tr(C)/c I)⁻¹ R``, ``[c, d]``; None where C ``[c, c]`` is 0 and nothing can be said.

    Example:
        >>> ridge_solution(torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0], [0.0]]), 0.5).tolist()
        [[1.0], [0.0]]
    """
    mean = gram.trace() / len(gram)
    if mean <= 0:
        return None
    return torch.linalg.solve(gram + ridge * mean * torch.eye(len(gram)).to(gram), both)
