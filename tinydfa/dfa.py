"""The head: one autograd node that sends the output error straight to every feedback point.

Forward, the head returns the model's output unchanged. Backward, it receives e, the gradient of the loss at the
output, projects it once, ``e @ F``, and returns one gradient per point of that forward pass. Everything else is
ordinary autograd: `loss.backward()`, hooks of DDP and FSDP, accumulation, checkpointing, autocast, `torch.compile`.

Letters: B samples (all batch dimensions flattened), c outputs, D width of the widest point, d width of a point,
k rows of a point per sample. Source: arXiv 2006.12878, eq. 4 and its code release, whose interface is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from tinydfa.broadcast import Broadcast, Rule, autocast_type, likeness
from tinydfa.checks import missing_target, refuse_half_precision
from tinydfa.errors import PointError, ShapeError
from tinydfa.feedback import Feedback
from tinydfa.layout import Layout, batch_first, measure, sample_dims
from tinydfa.methods import Method
from tinydfa.points import DFALayer, Record, Tape, in_backward

REDRAW = "set feedback_matrix = None on the head (attachment.head)"

__all__ = ["DFA", "DFALayer", "FeedbackPointsHandling"]


class FeedbackPointsHandling(Enum):
    """How the 2020 package kept points between a forward and a backward pass.

    Every forward pass now has an autograd node of its own, which knows its own points, so the three give the same
    gradients: several forward passes before one backward need no mode. The names stay for scripts that pass them.
    """

    LAST = "LAST"
    MINIBATCH = "MINIBATCH"
    REDUCE = "REDUCE"


def distinct(tensors: list[Tensor | None]) -> tuple[list[Tensor], tuple[int, ...]]:
    """The different tensors of a list, and for every entry which of them it is (-1: none)."""
    found: list[Tensor] = []
    which = []
    for tensor in tensors:
        if tensor is None:
            which.append(-1)
            continue
        place = next((i for i, other in enumerate(found) if other is tensor), len(found))
        if place == len(found):
            found.append(tensor)
        which.append(place)
    return found, tuple(which)


class DFA(nn.Module):
    """The head of direct feedback alignment, placed where the error is taken (usually the model's output).

    Args:
        dfa_layers: The feedback points it feeds, in a list or an `nn.ModuleList`.
        normalization: Divide the projection by sqrt(D). False: leave it as it is.
        rp_device: Device of the projection; None: the output's.
        no_training: Feed nothing to the points ("shallow": only the part above the last point trains). May be
            changed at any time.
        feedback_points_handling: Kept for 2020 scripts, see `FeedbackPointsHandling`.
        batch_dims: Dimensions that count samples, of the output and of every point that names none of its own.
            None: all but the output's last, and as many leading ones at the points.
        feedback: Distribution, scaling and seed of F. Its scaling holds when `normalization` is True.

    Shapes:
        output ``[*batch, c]``; a point ``[*batch, *features]``. A point with k times as many rows as the output
        repeats its sample's signal k times, divided by sqrt(k) (as the 2020 release does).

    Attributes:
        feedback_matrix: F, ``[c, D]``, a buffer: drawn in the first forward pass, or assigned, or loaded.

    Raises:
        PointError: There are no points, or a forward pass reached the head without passing any.
        ShapeError: The width of the output or of a point does not fit the feedback matrix.

    Example:
        >>> point = DFALayer()
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), point, nn.Linear(8, 2), DFA([point]))
        >>> net(torch.ones(3, 4)).sum().backward()
        >>> net[-1].feedback_matrix.shape
        torch.Size([2, 8])
    """

    feedback_matrix: Tensor | None

    def __init__(
        self,
        dfa_layers: Sequence[DFALayer] | nn.ModuleList,
        normalization: bool = True,
        rp_device: torch.device | str | None = None,
        no_training: bool = False,
        feedback_points_handling: FeedbackPointsHandling = FeedbackPointsHandling.LAST,
        batch_dims: tuple[int, ...] | None = (0,),
        *,
        feedback: Feedback | None = None,
    ) -> None:
        super().__init__()
        if len(dfa_layers) == 0:
            raise PointError("a head without feedback points trains nothing below it. Pass at least one DFALayer.")
        self.dfa_layers = dfa_layers
        self.normalization = normalization
        self.rp_device = rp_device
        self.no_training = no_training
        self.feedback_points_handling = FeedbackPointsHandling(feedback_points_handling)
        self.batch_dims = batch_dims
        self.feedback = feedback or Feedback()
        self.tape = Tape()
        self._planned: Any = (None, None, None, None)
        self.register_buffer("feedback_matrix", None)
        for number, layer in enumerate(self.points):
            layer.name = layer.name or f"dfa_layers.{number}"
            layer.tape = self.tape

    @property
    def points(self) -> list[DFALayer]:
        return list(self.dfa_layers)  # type: ignore[arg-type]

    def forward(self, input: Tensor) -> Tensor:
        """Return `input`; in the backward pass its gradient also goes to the points of this forward pass."""
        tape = self.tape
        if tape.observed is not None:
            tape.sample_dims, tape.at_head = sample_dims(self.batch_dims, input), input
        records = tape.take()
        method = tape.active_method
        if self.no_training and method.cuts:
            method = Method.SHALLOW
        training = torch.is_grad_enabled()
        if not method.cuts:
            tape.target = None
            return input
        if in_backward():  # recomputed: this node is only there to save what the first one saved
            return self._node(method, input, None, [], []) if training and method.broadcasts else input
        target = tape.take_target()
        if training and not records and input.requires_grad:
            raise PointError(
                "the forward pass reached the head without passing any of its feedback points: "
                f"{self._names()}. Place them in the model's forward, below the head, or attach with other points."
            )
        if training:
            for record in records:
                if record.point.skipped == record.graded:  # rarely: setting an attribute of a module is slow
                    record.point.skipped = not record.graded
        if records and records[-1].passed is input:  # a point at the output itself is the output
            last = records.pop().value
            assert last is not None
            input = last
        if method is Method.SHALLOW:
            return input
        fed = [record for record in records if record.value is not None]
        if not fed:
            if self.feedback_matrix is None and records:
                self._matrix(measure(self, input, records), input.device)
            return input
        return self._node(method, input, target, records, fed)

    def _node(
        self, method: Method, output: Tensor, target: Tensor | None, records: list[Record], fed: list[Record]
    ) -> Tensor:
        """Join `output` and the points of this pass that are `fed` in one autograd node."""
        index, which = distinct([record.rows_of for record in fed])
        layout, rule, matrix = self._plan(method, output, records, fed, which)
        if self.tape.loss_scale is None and method.ignores_loss_scale:
            refuse_half_precision(method, output)
        waits = method is Method.DRTP and target is None
        if waits and torch.compiler.is_compiling():
            raise missing_target()
        rows = batch_first(output, layout.output_dims)
        values = [batch_first(r.value, dims) for r, dims in zip(fed, layout.point_dims, strict=True)]  # type: ignore[arg-type]
        joined = Broadcast.apply(rule, self.tape if waits else None, matrix, target, rows, *index, *values)
        return joined if rows is output else joined.movedim(tuple(range(len(layout.output_dims))), layout.output_dims)

    def _plan(
        self, method: Method, output: Tensor, records: list[Record], fed: list[Record], which: tuple[int, ...]
    ) -> tuple[Layout, Rule, Tensor]:
        """Layout, rule and matrix of this pass; those of the pass before where nothing they depend on has changed."""
        if torch.compiler.is_compiling():
            layout = measure(self, output, records)
            rule = Rule.of(self, method, layout, which, autocast_type(output.device), None)
            return layout, rule, self._matrix(layout, output.device)
        points = [(r.point, r.shape, r.value is None or r.value.dtype, r.point.batch_dims) for r in records]
        indexed = [r.rows_of.shape for r in records if r.rows_of is not None] if which and max(which) >= 0 else None
        product = autocast_type(output.device)
        settings = (
            method,
            product,
            self.batch_dims,
            self.normalization,
            self.feedback,
            self.rp_device,
            self.tape.loss_scale,
        )
        key = (settings, output.shape, output.device, points, which, indexed)
        known, layout, rule, matrix = self._planned
        if matrix is None or matrix is not self.feedback_matrix or key != known:
            layout = measure(self, output, records)
            matrix = self._matrix(layout, output.device)
            values = [batch_first(r.value, dims) for r, dims in zip(fed, layout.point_dims, strict=True)]  # type: ignore[arg-type]
            rule = Rule.of(self, method, layout, which, product, likeness(values))
            self._planned = (key, layout, rule, matrix)
        return layout, rule, matrix

    def _matrix(self, layout: Layout, device: torch.device) -> Tensor:
        matrix = self.feedback_matrix
        if matrix is None:
            matrix = self._draw(layout)
            self.feedback_matrix = matrix
        if matrix.shape[0] != layout.outputs:
            raise ShapeError(
                f"the error at the head is {layout.outputs} wide, but the feedback matrix was drawn for "
                f"{matrix.shape[0]}. Keep the output's width and batch_dims, or draw anew: {REDRAW}."
            )
        for name, start, width in zip(layout.names, layout.starts, layout.widths, strict=True):
            end = start + width
            if end > matrix.shape[1]:
                raise ShapeError(
                    f"feedback point {name!r} reads {end} columns, but the feedback matrix has {matrix.shape[1]}. "
                    f"Its width changed since the first pass: name its batch_dims if a sample's length varies, or draw "
                    f"anew: {REDRAW}."
                )
        if self.rp_device is not None:
            device = torch.device(self.rp_device)
        if matrix.device != device:
            matrix = matrix.to(device)
            self.feedback_matrix = matrix
        return matrix

    def _draw(self, layout: Layout) -> Tensor:
        if torch.compiler.is_compiling() or not torch.is_inference_mode_enabled():
            return self.feedback.draw(layout.outputs, layout.columns)
        with torch.inference_mode(False):  # evaluated before it trains: the matrix must still serve a backward pass
            return self.feedback.draw(layout.outputs, layout.columns)

    def _names(self) -> str:
        return ", ".join(repr(layer.label) for layer in self.points)

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

    def extra_repr(self) -> str:
        return f"method={self.tape.method}, points=[{self._names()}], feedback={self.feedback}"
