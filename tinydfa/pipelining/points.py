"""The feedback points of one stage: what passes them, and the gradients that they get.

A stage keeps no node between its points and the error: it notes what passes, and when the error of a microbatch has
come, backpropagates each point's signal through the layers right below it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tinydfa.attaching import entries
from tinydfa.attaching.attach import own_head, own_points, points_to_hook
from tinydfa.attaching.attachment import attachment_of
from tinydfa.errors import DFAError, PointError
from tinydfa.feedback.drawn import Feedback
from tinydfa.passes.shapes import batch_first, check_rows, count, leading
from tinydfa.points import DFALayer
from tinydfa.rules import Backprop, Rule
from tinydfa.signals import Slot, signals

BatchDims = tuple[int, ...] | None


class Passed(NamedTuple):
    """One point in one forward pass."""

    name: str
    value: Tensor  # what came in, with its graph
    onward: Tensor  # what went on: `value`, detached
    batch_dims: BatchDims  # of the point itself


class Pass(NamedTuple):
    """What one forward pass of a stage leaves for its W."""

    points: list[Passed]
    output: Tensor | None  # where the error is taken, with its graph; None below the last stage
    top: Tensor | None  # the same as a leaf: its gradient is the error


class OwnColumns(NamedTuple):
    """Where in the feedback of the whole model a stage's points read."""

    outputs: int  # c
    largest: int  # D as the scale means it
    total: int  # columns of the whole matrix
    first: int  # the stage's own first column


class StagePoints:
    """The points of a stage, hooked into its module, and the place where the last stage takes the error.

    Args:
        module: The stage's module.
        rule: What trains it.
        points: Names or patterns of submodules, as for `tinydfa.attach`; None: the module's own `DFALayer`s.
        output: Where the error is taken: the name of a submodule; None: the module's own head, else its return value.
        last: Whether the error is taken in this stage.

    Raises:
        DFAError: The module is attached; no points; a name that does not exist.
    """

    def __init__(
        self, module: nn.Module, rule: Rule, points: Sequence[str] | str | None, output: str | None, last: bool
    ) -> None:
        if attachment_of(module) is not None:
            raise DFAError("the stage's module is attached. The pipeline feeds its points itself: detach() it first.")
        self.module = module
        self.names: list[str] = []
        self._passed: list[Passed] = []
        self._output: tuple[Tensor, Tensor, int] | None = None  # with its graph, as a leaf, points before it
        self.recording = False
        self._hook_points(module, rule, points, last)
        if last:
            self._output_module(module, output).register_forward_hook(self._take)

    def _hook_points(
        self, module: nn.Module, rule: Rule, patterns: Sequence[str] | str | None, needed_below: bool
    ) -> None:
        own = own_points(module)
        if patterns is None and not own and not needed_below:
            points_to_hook(module, rule, None)  # says that there are none, and what to do
        for point in own.values():
            point.link = None  # of a head of the whole model: here it is a place like any other
        if patterns is None:
            places: dict[str, tuple[nn.Module, entries.Keys]] = {name: (point, ()) for name, point in own.items()}
        else:
            places = points_to_hook(module, rule, patterns)
        for name, (place, keys) in places.items():
            self.names.append(name)
            place.register_forward_hook(self._note(name, keys))

    def _output_module(self, module: nn.Module, output: str | None) -> nn.Module:
        head = own_head(module)
        if head is not None:
            head.link.change(rule=Backprop())  # passes on what it gets
        if output is None:
            return head if head is not None else module
        found = dict(module.named_modules())
        if output not in found:
            raise PointError(f"output {output!r} is no submodule of {type(module).__name__}, the last stage.")
        return found[output]

    def _note(self, name: str, keys: entries.Keys) -> Callable[..., Any]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
            if not self.recording:
                return output
            own = module.batch_dims if isinstance(module, DFALayer) else None
            if isinstance(module, DFALayer) and len(inputs) > 1 and inputs[1] is not None:
                raise PointError(
                    f"feedback point {name!r} was given an index of its rows, which no pipeline passes on."
                )
            place = keys or next((place for place, _ in entries.tensors_in(output)), ())
            value = entries.get(output, place, f"the output of {name!r}")
            onward = value.detach()
            self._passed.append(Passed(name, value, onward, own))
            return entries.put(output, place, onward)

        return hook

    def _take(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        if not self.recording:
            return output
        if not isinstance(output, Tensor):
            raise PointError(
                f"the error is taken at the output of {type(module).__name__}, which is a {type(output).__name__}. "
                "Name a submodule of the last stage that returns one tensor: output=..."
            )
        if self._passed and self._passed[-1].onward is output:  # such a point feeds nothing: it is the output
            output = self._passed.pop().value
        top = output.detach().requires_grad_()
        self._output = output, top, len(self._passed)
        return top

    def start(self) -> None:
        """A forward pass begins."""
        self._passed, self._output, self.recording = [], None, True

    def finish(self) -> Pass:
        """What passed since `start`."""
        self.recording = False
        passed, taken = self._passed, self._output
        self._passed, self._output = [], None
        if taken is None:
            return Pass(passed, None, None)
        output, top, before = taken
        if before < len(passed):
            raise PointError(f"feedback point {passed[-1].name!r} lies above the output that the error is taken at.")
        return Pass(passed, output, top)


Shape = tuple[str, tuple[int, ...], BatchDims]  # of what passed a point: its name, shape and own batch dimensions


def shapes_of(passed: Pass) -> list[Shape]:
    """What passed the points of a stage, without the numbers."""
    return [(point.name, tuple(point.value.shape), point.batch_dims) for point in passed.points]


def sizes(shapes: Sequence[Shape], batch_dims: tuple[int, ...]) -> list[tuple[tuple[int, ...], int, int]]:
    """Batch dimensions, number of rows and width of every point."""
    found = []
    for _, shape, own in shapes:
        dims = leading(batch_dims if own is None else own, len(shape))
        found.append((dims, *count(shape, dims)))
    return found


def backward(
    passed: Pass,
    error: Tensor | None,
    encoded: Tensor,
    matrix: Any,
    feedback: Feedback,
    columns: OwnColumns,
    batch_dims: tuple[int, ...],
) -> None:
    """Add the gradients of one microbatch to those of the stage's weights.

    Args:
        passed: Its forward pass.
        error: e at the output, in the output's shape; None below the last stage.
        encoded: s, ``[B, c]``.
        matrix: The stage's own columns of F, or the projector.
        feedback: How F is used.
        columns: Where they stand in the whole.
        batch_dims: Of the output.
    """
    roots: list[Tensor] = []
    gradients: list[Tensor] = []
    if passed.output is not None and passed.output.requires_grad:
        assert error is not None
        roots, gradients = [passed.output], [error]
    values, slots = slots_of(passed, feedback, columns, batch_dims, encoded.shape[0])
    if slots:
        factors = {slot.factor for slot in slots}
        scale = factors.pop() if len(factors) == 1 else 1.0
        slots = [slot._replace(factor=slot.factor / scale) for slot in slots]
        width = matrix.shape[1] if isinstance(matrix, Tensor) else columns.total
        roots += values
        gradients += signals(encoded, matrix, slots, columns=width, scale=scale)
    if roots:
        torch.autograd.backward(roots, gradients)


def slots_of(
    passed: Pass, feedback: Feedback, columns: OwnColumns, batch_dims: tuple[int, ...], samples: int
) -> tuple[list[Tensor], list[Slot]]:
    """The points that are trained, batch dimensions in front, and what each reads of the projection."""
    values: list[Tensor] = []
    slots: list[Slot] = []
    start = 0 if feedback.projector is None else columns.first
    for point, (dims, rows, width) in zip(passed.points, sizes(shapes_of(passed), batch_dims), strict=True):
        if point.value.requires_grad:
            if rows % max(samples, 1):
                check_rows(DFALayer(point.name), rows, samples, None)  # says what to do
            value = batch_first(point.value, dims)
            factor = feedback.scale(columns.outputs, columns.largest, width)
            place, number = (point.value.dtype, point.value.device), len(slots)
            slot = Slot(point.name, start, width, factor, number, *place, shape=value.shape, leaf=value.is_leaf)
            alike = [
                s.twin
                for s in slots
                if (s.start, s.width, s.factor, s.dtype, s.device) == (start, width, factor, *place)
            ]
            slots.append(slot._replace(twin=alike[0]) if alike else slot)
            values.append(value)
        if not feedback.shared:
            start += width
    return values, slots
