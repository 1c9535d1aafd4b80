"""Feedback that is fitted to backpropagation: every so many passes the best linear guess of its signals is solved for.

    fitted    C <- memory C + eᵀe,  R <- memory R + eᵀδ,  F = (C + ridge tr(C)/c I)⁻¹ R        ours

Here e ``[R, c]`` is the error that reaches each row of a point and δ ``[R, d]`` what backpropagation brings to it in
an exact pass, which trains by it. In the sense of least squares, ``e @ F`` is the linear function of e that is nearest
to δ. A factor on the loss cancels.

Signals may shrink by orders of magnitude while a network trains. Then C and R are those of the first looks for long,
and F hardly changes; where it does, so does the size of what the points receive. With `steady` every look counts the
same, and each point's F has the length of its first fit (``|.|`` is the root of the sum of squares):

    C <- memory C + eᵀe / |e|²,  R <- memory R + eᵀδ / (|e| |δ|),  F as above, times |F of the first fit| / |F|

Before F changes, an exact pass shows how well the old one has held: the cosine of e F with δ, over all rows at once, is
known from the moments that are there anyway (`cosine`). With `adapt` the next exact pass comes sooner or later by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import ClassVar

import torch
from torch import Tensor

from tinydfa.errors import OptionError, ShapeError
from tinydfa.rules.learned import Learning, Memory, Seen
from tinydfa.rules.options import positive, share, switch, whole

WIDEST = 4096  # c of the largest C: two matrices of 128 MiB for each point, and a solve of some seconds


@dataclass(frozen=True, repr=False)
class Fitted(Learning):
    """The F for which ``e @ F`` is nearest to backpropagation's signal, fitted in one exact pass of many.

    Args:
        exact_every: The first and every so-manieth training pass is one of backpropagation, and F is fitted to it.
        memory: What is left of the moments C and R of the passes before. 0: each fit is of one pass alone.
        ridge: Of the solve, as a share of the mean diagonal entry of C.
        rows: Most rows of a point that are looked at, drawn anew in each exact pass. 0: all.
        adapt: The cosine that the old F is to have with backpropagation's signals when the next exact pass comes, mean
            over points. Where it has more, the time between two exact passes is doubled, where it has less, halved.
            None: the time is `exact_every`.
        exact_between: With `adapt`, the fewest and the most training passes from one exact pass to the next.
        steady: Every look counts the same, however large its errors and signals are, and F keeps its length. For
            optimizers to which the size of a gradient means little, such as Adam.

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
    adapt: float | None = None
    exact_between: tuple[int, int] = (10, 1000)
    steady: bool = False

    def __post_init__(self) -> None:
        whole(self, "exact_every", self.exact_every, least=1)
        if self.adapt is not None:
            share(self, "adapt", self.adapt)
            self._check_between()
        switch(self, "steady", self.steady)
        whole(self, "rows", self.rows, least=0)
        share(self, "memory", self.memory)
        positive(self, "ridge", self.ridge)

    def _check_between(self) -> None:
        """Refuse bounds that are none, or that the first time is not within."""
        between = self.exact_between
        if not isinstance(between, tuple | list) or len(between) != 2:
            raise OptionError(f"Fitted: exact_between is two whole numbers, as in (10, 1000); got {between!r}.")
        for bound in between:
            whole(self, "exact_between", bound, least=1)
        if not between[0] <= self.exact_every <= between[1]:
            raise OptionError(
                f"Fitted: exact_every={self.exact_every} is where the time between two exact passes begins, and "
                f"exact_between={between!r} leaves it out. Widen the one or change the other."
            )

    @property
    def adapts(self) -> bool:  # type: ignore[override]
        return self.adapt is not None

    def __repr__(self) -> str:
        """As it was before there were `adapt` and `steady`, where they are off: checkpoints of pipelines hold it."""
        unsaid = ([] if self.adapts else ["adapt", "exact_between"]) + ([] if self.steady else ["steady"])
        shown = {name: value for name, value in self.options.items() if name not in unsaid}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    def check_width(self, outputs: int) -> None:
        refuse_vocabulary(self, outputs)

    def moments(self, seen: Seen) -> dict[str, Tensor]:
        assert seen.gradient is not None
        error, gradient = seen.error.double(), seen.gradient.double()
        moments = {"errors": error.T @ error, "both": error.T @ gradient}
        return moments | {"power": gradient.square().sum()} if self.adapts or self.steady else moments

    def update(self, feedback: Tensor, moments: dict[str, Tensor], memory: dict[str, Tensor]) -> None:
        fit = {name: moments[name] for name in ("errors", "both")}
        if self.adapts and memory:  # there is a fit that may have become stale
            memory["cosine"] = cosine(feedback.double(), **fit, power=moments["power"])
        if self.steady:
            self._fit_steadily(feedback, fit, moments["power"], memory)
        else:
            remember(memory, fit, self.memory)
            solve_into(feedback, memory, self.ridge)

    def _fit_steadily(self, feedback: Tensor, fit: dict[str, Tensor], power: Tensor, memory: dict[str, Tensor]) -> None:
        sent, came = fit["errors"].trace().sqrt(), power.sqrt()  # |e| and |δ|
        if not (sent > 0 and came > 0):
            return
        remember(memory, {"errors": fit["errors"] / sent**2, "both": fit["both"] / (sent * came)}, self.memory)
        solution = ridge_solution(memory["errors"], memory["both"], self.ridge)
        if solution is None or not (length := solution.norm()) > 0:
            return
        memory.setdefault("length", length * came / sent)
        feedback.copy_(solution * (memory["length"] / length))

    def period(self, before: int, memory: Memory) -> int:
        found = [of_point.pop("cosine") for of_point in memory.values() if "cosine" in of_point]
        known = [float(one) for one in found if one.isfinite()]
        if self.adapt is None or not known:
            return before
        least, most = self.exact_between
        return max(least, min(most, 2 * before if fmean(known) > self.adapt else before // 2))


def cosine(feedback: Tensor, errors: Tensor, both: Tensor, power: Tensor) -> Tensor:
    """The cosine of e F with δ over all rows of a pass, as two long vectors; not finite where either is 0.

    Args:
        feedback: F, ``[c, d]``.
        errors: eᵀe, ``[c, c]``.
        both: eᵀδ, ``[c, d]``.
        power: The sum of the squares of δ.

    Example:
        >>> e, delta = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [-4.0]])
        >>> found = cosine(torch.tensor([[2.0]]), e.T @ e, e.T @ delta, delta.square().sum())
        >>> torch.allclose(found, torch.cosine_similarity(e.flatten(), delta.flatten(), dim=0))
        True
    """
    sent = (feedback * (errors @ feedback)).sum()
    return (feedback * both).sum() / (sent * power).sqrt()


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
