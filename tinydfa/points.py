"""Feedback points, and the tape that carries them to their head within one forward pass.

A point stands where a layer's output leaves it. It writes the output on the tape and passes on a detached copy, so
that nothing upstream of it is backpropagated. The head takes what is on the tape and makes it the inputs of its one
autograd node (`tinydfa.dfa`). Nothing else connects points and head, and the tape is empty again after the head.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tinydfa.errors import PointError
from tinydfa.methods import Method


class Record(NamedTuple):
    """One point in one forward pass."""

    point: DFALayer
    shape: torch.Size
    value: Tensor | None  # what came in, with its graph; None where no gradient is asked for
    passed: Tensor | None  # what went on: `value` detached
    rows_of: Tensor | None  # for every row of `value`, the row of the output it belongs to
    graded: bool  # gradients were being recorded


class Tape:
    """What the points and the head of one model share.

    A plain object, not a module: it is no part of the model's tree, and `copy.deepcopy` of a model copies it along.

    A pass of an attached model is known to begin and to end, also by an exception (`scoped`, `tinydfa.hooks`). Of a
    head without `attach` only the end is known. There a point that runs again before the head means that a new pass
    has begun and that the one before was broken off, so everything on the tape is dropped.
    """

    def __init__(self, method: Method = Method.DFA) -> None:
        self.method = method
        self.scoped = False
        self.open = False  # a pass of an attached model is in progress
        self.suspended = 0  # blocks of `backprop()` in progress
        self.records: list[Record] = []
        self.index: Tensor | None = None
        self.target: Tensor | None = None
        self.loss_scale: float | None = None
        self.observed: list[tuple[DFALayer, Tensor]] | None = None
        self.sample_dims: tuple[int, ...] = (0,)  # of the last observed pass
        self.at_head: Tensor | None = None  # of an observed pass: where the error is taken

    @property
    def active_method(self) -> Method:
        return Method.BP if self.suspended else self.method

    def write(self, record: Record) -> None:
        """Keep a point for the head."""
        if not self.scoped:
            if any(kept.point is record.point for kept in self.records):
                self.records = []
        elif not self.open:
            if record.value is None:
                return
            raise PointError(
                f"feedback point {record.point.label!r} ran outside a call of the attached model, so no head feeds it "
                "and everything below it would keep its weights. Call model(...) itself, or attach to the submodule "
                "that you call."
            )
        self.records.append(record)

    def take(self) -> list[Record]:
        """The records of this pass, which are then off the tape."""
        records = self.records
        self.records = []
        return records

    def take_target(self) -> Tensor | None:
        target = self.target
        self.target = None
        return target

    @contextmanager
    def backprop(self) -> Iterator[None]:
        self.suspended += 1
        try:
            yield
        finally:
            self.suspended -= 1


def in_backward() -> bool:
    """Whether a backward pass is running: a forward pass seen then is a recomputation (`torch.utils.checkpoint`)."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


class DFALayer(nn.Module):
    """A feedback point: the place where a layer receives its training signal.

    Identity until a head knows it (`tinydfa.DFA`, `tinydfa.attach`). From then on its output is its input, detached:
    what is above the point trains as if its input were data, what is below trains on the head's signal.

    Args:
        name: A name for messages; `attach` fills in the module's path in the model.
        batch_dims: Dimensions of the input that count samples; the others are the point's features. None: as the head.
        passthrough: Record the point but do not cut the graph (the 2020 package measured alignment that way).
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
        self.tape: Tape | None = None

    @property
    def label(self) -> str:
        return self.name or "(unnamed)"

    def forward(self, input: Tensor, index: Tensor | None = None) -> Tensor:
        """
        Args:
            input: Output of the layer, ``[*batch, *features]``.
            index: For every row of `input` the row of the model's output it belongs to, ``[rows]``, int64. Needed
                where the output has fewer rows and they are not whole multiples in order (nodes of several graphs).

        Returns:
            `input`, detached from everything that computed it when the method in force cuts the graph.
        """
        tape = self.tape
        if tape is None:
            return input
        if tape.observed is not None:
            tape.observed.append((self, input))
        if tape.suspended or not tape.method.cuts:
            return input
        passed = input if self.passthrough else input.detach()
        recording = torch.is_grad_enabled()
        if in_backward():
            if self.skipped and recording and input.requires_grad:
                raise self._reentrant()
            return passed
        rows_of = tape.index if index is None else index
        if recording and input.requires_grad:
            tape.write(Record(self, input.shape, input, passed, rows_of, recording))
        else:
            tape.write(Record(self, input.shape, None, None, rows_of, recording))
        return passed

    def _reentrant(self) -> PointError:
        return PointError(
            f"feedback point {self.label!r} lies in a region that torch.utils.checkpoint ran without gradients "
            "(use_reentrant=True), so no head feeds it and the layers below it would keep their weights. Pass "
            "use_reentrant=False."
        )

    def extra_repr(self) -> str:
        return f"name={self.name!r}, width={self.width}"
