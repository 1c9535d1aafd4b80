"""Feedback points: the places where a layer receives its training signal.

A point stands where a layer's output leaves it. It notes the output for the head and passes on a detached copy, so that
nothing upstream of it is backpropagated. The head makes what its points noted the inputs of its one autograd node
(`tinydfa.head`). Nothing else connects the two, and nothing stays noted after the head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tinydfa.errors import PointError
from tinydfa.passes.forward_pass import Link, Record, Rows, hand_over, in_backward, transformed
from tinydfa.surroundings.tracing import is_tracing


class DFALayer(nn.Module):
    """A feedback point, written into a model or made by `attach`.

    Identity until a head knows it (`tinydfa.Head`, `tinydfa.attach`). From then on its output is its input, detached:
    what is above the point trains as if its input were data, what is below trains on the head's signal.

    Args:
        name: A name for messages; `attach` fills in the module's path in the model.
        batch_dims: Dimensions of the input that count samples; the others are the point's features. None: as the head.
        passthrough: Note the point but do not cut the graph (the 2020 package measured alignment that way).

    Attributes:
        width: d, known after the first pass.
    """

    def __init__(
        self, name: str | None = None, batch_dims: tuple[int, ...] | None = None, passthrough: bool = False
    ) -> None:
        super().__init__()
        self.name = name
        self.batch_dims = batch_dims
        self.passthrough = passthrough
        self.width: int | None = None
        self.skipped = False  # in the last pass that trained, this point ran without gradients
        self.is_output = False  # the head stands right above it, so that it has nothing to feed
        self.link: Link | None = None

    @property
    def label(self) -> str:
        return self.name or "(unnamed)"

    @property
    def cuts(self) -> bool:
        """Whether the point stops the backpropagated gradient in a pass that runs now."""
        return self.link is not None and self.link.cuts

    @property
    def watched(self) -> bool:
        """Whether somebody looks at what passes, and at the gradients there."""
        return self.link is not None and self.link.observation is not None

    @property
    def layerwise(self) -> bool:
        """Whether a rule is in force that replaces the weights on the signal's way down."""
        return self.link is not None and self.link.rule.layerwise and not self.link.suspended

    def forward(self, input: Tensor, index: Tensor | None = None) -> Tensor:
        """
        Args:
            input: Output of the layer, ``[*batch, *features]``.
            index: For every row of `input` the row of the model's output it belongs to, ``[rows]``, int64, or -1 for a
                row that receives nothing. Needed where the output has fewer rows and they are not whole multiples in
                order (nodes of several graphs).

        Returns:
            `input`, detached from everything that computed it when the rule in force cuts the graph.
        """
        return self.pass_on(input, None if index is None else Rows(index))

    def pass_on(self, input: Tensor, rows: Rows | None) -> Tensor:
        """As `forward`, where the samples of the rows may be told in other ways."""
        link = self.link
        if link is None:
            return input
        if link.observation is not None:
            input = link.observation.note(self, input, self._rows(link, rows))
        if not link.cuts:
            return input
        passed = noted(self, link, input) if rows is None else None
        return self._note(link, input, rows) if passed is None else passed

    def _note(self, link: Link, input: Tensor, rows: Rows | None) -> Tensor:
        """As `forward`, of a point that may have to note more than what comes in and goes on."""
        current = link.current
        if not (link.scoped and current.open) and is_tracing():
            return input
        if current.taker is not None:
            taken = hand_over(current.taker, self, input, rows)
            if taken is not None:
                return taken
        recording = torch.is_grad_enabled()
        wanted = recording and (input.requires_grad or transformed())
        passed = input if self.passthrough else input.detach()
        if in_backward():
            if link.uncut == torch._C._current_graph_task_id():
                return input
            if self.skipped and wanted:
                raise self._reentrant()
            return passed
        if input.is_nested:
            return self._pass_nested(passed, wanted)
        rows = self._rows(link, rows)
        if wanted:
            link.write(Record(self, input, passed, input.shape, rows, True))
        else:
            link.write(Record(self, None, None if recording else passed, input.shape, rows, recording))
        return passed

    def _rows(self, link: Link, told: Rows | None) -> Rows | None:
        if told is not None:
            return told
        return None if link.current.rows is None else link.current.rows_of(self)

    def _pass_nested(self, passed: Tensor, wanted: bool) -> Tensor:
        """torch's Transformer evaluates padded batches as nested tensors, which have no shape to note."""
        if wanted:
            raise PointError(
                f"feedback point {self.label!r} got a nested tensor, whose samples have rows of unequal number, so a "
                "signal does not fit it. Train on padded tensors (to_padded_tensor), and say with attachment.samples "
                "which positions are padding; or choose a point where the tensor is padded."
            )
        return passed

    def _reentrant(self) -> PointError:
        return PointError(
            f"feedback point {self.label!r} lies in a region that torch.utils.checkpoint ran without gradients "
            "(use_reentrant=True), so no head feeds it and the layers below it would keep their weights. Pass "
            "use_reentrant=False."
        )

    def extra_repr(self) -> str:
        return f"name={self.name!r}, width={self.width}"


def noted(point: DFALayer, link: Link, input: Tensor) -> Tensor | None:
    """What goes on from a point in an ordinary training pass of an attached model; None if it is another kind of pass.

    Every training pass comes through here once for each point, so it is kept short.
    """
    current = link.passes.current
    if (
        link.cuts
        and link.observation is None
        and current.open
        and current.taker is None
        and current.rows is None
        and input.requires_grad
        and not input.is_nested
        and torch.is_grad_enabled()
        and not point.passthrough
        and not in_backward()
    ):
        passed = input.detach()
        current.records.append((point, input, passed))
        return passed
    return None
