"""The module that holds the feedback of one model: a matrix, drawn in the first pass, or what learns in its place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tinydfa.errors import DFAError, PointError, ShapeError
from tinydfa.feedback.drawn import Feedback
from tinydfa.feedback.learner import Learner
from tinydfa.feedback.room import refuse_too_large
from tinydfa.passes.forward_pass import Settings
from tinydfa.planning import REDRAW, Columns
from tinydfa.rules import Rule


class Holder(nn.Module):
    """Feedback that is the same on every device and is saved with the model.

    Attributes:
        feedback_matrix: F, ``[c, D]``, a buffer: drawn in the first forward pass, or assigned, or loaded.
        learner: What a rule that learns has made of the feedback; None before its first pass.
        size: c and D, known after the first pass.
        forwards: Training passes so far, of a rule that looks at some.
    """

    feedback_matrix: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.learner: Learner | None = None
        self.size: tuple[int, int] | None = None
        self.forwards = 0
        self.register_buffer("feedback_matrix", None)

    def ready(self, settings: Settings, outputs: int, columns: Columns, output: Tensor) -> None:
        """See that there is a matrix, or a learner, of the right size where the output is."""
        if self.size != (outputs, columns.total):
            self.size = outputs, columns.total
        if settings.feedback.projector is not None and not settings.rule.learns:
            return
        device = output.device if settings.device is None else torch.device(settings.device)
        if settings.rule.learns:
            like = torch.empty(0, dtype=torch.promote_types(output.dtype, torch.float32), device=device)
            self._ready_learner(settings, outputs, columns, like)
        else:
            self._ready_matrix(settings.feedback, outputs, columns.total, device)

    def in_force(self, settings: Settings) -> Tensor | None:
        """The matrix of the rule in force; None where a projector stands in its place."""
        if settings.rule.learns:
            return self.learner.matrix if self.learner is not None else None
        return self.feedback_matrix if settings.feedback.projector is None else None

    def load_learner(self, rule: Rule, state: dict[str, Any] | None) -> None:
        """Take over a saved state of feedback that learns, also before the first pass."""
        self.learner = None if state is None else Learner.of(rule, state)

    def _ready_matrix(self, feedback: Feedback, outputs: int, columns: int, device: torch.device) -> None:
        matrix = self.feedback_matrix
        if matrix is None:
            matrix = draw(feedback, outputs, columns)
            self.feedback_matrix = matrix
        if matrix.shape[0] != outputs:
            raise ShapeError(
                f"the error at the head is {outputs} wide, but the feedback matrix was drawn for "
                f"{matrix.shape[0]}. Keep the output's width and batch_dims, or draw anew: {REDRAW}."
            )
        if matrix.device != device:
            if device.type == "cuda" and not torch.compiler.is_compiling():
                refuse_too_large(outputs, columns, str(feedback.distribution), device)
            self.feedback_matrix = matrix.to(device)

    def _ready_learner(self, settings: Settings, outputs: int, columns: Columns, like: Tensor) -> None:
        learner = self.learner
        if learner is not None and (learner.matrix.device != like.device or learner.matrix.dtype is not like.dtype):
            self.learner = learner = Learner.of(learner.rule, learner.state_dict(), like)
        if learner is None or learner.rule.name != settings.rule.name:
            self.learner = learner = new_learner(settings, outputs, columns, like)
        learner.rule, learner.number = settings.rule, self.forwards
        if learner.matrix.shape != (outputs, columns.total):
            raise ShapeError(
                f"the error at the head is {outputs} wide and the points {columns.total} together, but the feedback "
                f"that learns is {tuple(learner.matrix.shape)}. Keep the model's widths, or attach anew."
            )

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, metadata: Any, strict: bool, missing: list[str], *rest: Any
    ) -> None:
        """Take over a saved matrix of any size, also before the first pass; weights saved without one keep ours."""
        saved = state_dict.get(prefix + "feedback_matrix")
        if saved is not None and (self.feedback_matrix is None or self.feedback_matrix.shape != saved.shape):
            like = self.feedback_matrix if self.feedback_matrix is not None else saved
            self.feedback_matrix = torch.empty_like(saved, device=like.device)
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, *rest)
        if saved is None and prefix + "feedback_matrix" in missing:
            missing.remove(prefix + "feedback_matrix")


def new_learner(settings: Settings, outputs: int, columns: Columns, like: Tensor) -> Learner:
    """What a rule that learns begins with: the matrix of fixed feedback, its scale taken in, of the type of `like`.

    Raises:
        DFAError: the pass is compiled.
        ShapeError: the rule cannot deal with an error of this width.
        PointError: points share a name, by which the learner would tell them apart.
    """
    if torch.compiler.is_compiling():
        raise DFAError(
            f"{settings.rule} begins its feedback in the model's first pass, and that pass is compiled. Call the model "
            "once before it is compiled: with torch.no_grad(): model(x)."
        )
    settings.rule.check_width(outputs)  # type: ignore[attr-defined]
    matrix = draw(settings.feedback, outputs, columns.total).float()
    starts = columns.starts or {}
    places = {point.label: (start, point.width or 0) for point, start in starts.items()}
    if len(places) < len(starts):
        names = ", ".join([repr(point.label) for point in starts])
        raise PointError(
            f"{settings.rule} keeps something for every point by its name, and some share one. {names}."
        )  # fmt: skip
    for start, width in places.values():
        matrix[:, start : start + width] *= settings.feedback.scale(outputs, columns.largest, width)
    learner = Learner(settings.rule, matrix.to(like), places)
    learner.begin(settings.feedback.seed)
    return learner


def draw(feedback: Feedback, outputs: int, columns: int) -> Tensor:
    if torch.compiler.is_compiling() or not torch.is_inference_mode_enabled():
        return feedback.draw(outputs, columns)
    with torch.inference_mode(False):  # evaluated before it trains: the matrix must still serve a backward pass
        return feedback.draw(outputs, columns)
