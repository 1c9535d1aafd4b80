"""The feedback points of one stage: hooks in its module, and what a forward pass does at them.

A stage keeps no node between its points and the error. What happens at a point says who looks at the pass: an ordinary
one cuts the graph and notes what passed (`Cut`); others let it pass, add noise to it, or run it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from tinydfa.attaching import entries
from tinydfa.attaching.attach import own_head, own_points, points_to_hook
from tinydfa.attaching.attachment import attachment_of
from tinydfa.errors import DFAError, PointError
from tinydfa.points import DFALayer
from tinydfa.rules import Backprop, Rule

BatchDims = tuple[int, ...] | None


class Like(NamedTuple):
    """What passed a point, without its numbers."""

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device
    graded: bool  # something below it asks for a gradient
    leaf: bool


class Passed(NamedTuple):
    """One point in one forward pass."""

    name: str
    like: Like
    batch_dims: BatchDims  # of the point itself
    value: Tensor | None = None  # what came in, with its graph; None: it is not kept


class Pass(NamedTuple):
    """What one forward pass of a stage leaves for its W."""

    points: list[Passed]
    output: Tensor | None  # where the error is taken, with its graph; None below the last stage
    top: Tensor | None  # the same as a leaf: its gradient is the error


class Watcher(Protocol):
    """Who looks at a forward pass."""

    def at_point(self, name: str, value: Tensor, batch_dims: BatchDims) -> Tensor:
        """Note what comes to a point; returns what goes on."""

    def at_output(self, output: Tensor) -> Tensor:
        """The same where the error is taken, on the last stage."""


def like(value: Tensor) -> Like:
    return Like(value.shape, value.dtype, value.device, value.requires_grad, value.is_leaf)


class Cut:
    """An ordinary forward pass: the graph is cut at every point, and above the place of the error."""

    def __init__(self) -> None:
        self.points: list[Passed] = []
        self._last: Tensor | None = None
        self._taken: tuple[Tensor, Tensor, int] | None = None  # with its graph, as a leaf, points before it

    def at_point(self, name: str, value: Tensor, batch_dims: BatchDims) -> Tensor:
        self._last = value.detach()
        self.points.append(Passed(name, like(value), batch_dims, value))
        return self._last

    def at_output(self, output: Tensor) -> Tensor:
        if self.points and self._last is output:  # such a point feeds nothing: it is the output
            output = self._uncut(self.points.pop())
        top = output.detach().requires_grad_()
        self._taken = output, top, len(self.points)
        return top

    def _uncut(self, point: Passed) -> Tensor:
        """The graph below a point."""
        assert point.value is not None
        return point.value

    def finish(self) -> Pass:
        """What passed."""
        if self._taken is None:
            return Pass(self.points, None, None)
        output, top, before = self._taken
        if before < len(self.points):
            raise PointError(
                f"feedback point {self.points[-1].name!r} lies above the output that the error is taken at."
            )
        return Pass(self.points, output, top)


class StagePoints:
    """The points of a stage, hooked into its module, and the place where the last stage takes the error.

    Args:
        module: The stage's module.
        rule: What trains it.
        points: Names or patterns of submodules, as for `tinydfa.attach`; None: the module's own `DFALayer`s.
        output: Where the error is taken: the name of a submodule; None: the module's own head, else its return value.
        last: Whether the error is taken in this stage.

    Attributes:
        watcher: Who looks at the pass in progress; None: the module does what it did without points.
        called: What the module was called with in a pass that somebody looks at.

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
        self.watcher: Watcher | None = None
        self._hook_points(module, rule, points, last)
        if last:
            self._output_module(module, output).register_forward_hook(self._take)

    @contextmanager
    def watched(self, watcher: Watcher | None) -> Iterator[None]:
        """Inside this block a forward pass is looked at."""
        before, self.watcher = self.watcher, watcher
        try:
            yield
        finally:
            self.watcher = before

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
            if self.watcher is None:
                return output
            own = module.batch_dims if isinstance(module, DFALayer) else None
            if isinstance(module, DFALayer) and len(inputs) > 1 and inputs[1] is not None:
                raise PointError(
                    f"feedback point {name!r} was given an index of its rows, which no pipeline passes on."
                )
            place = keys or next((place for place, _ in entries.tensors_in(output)), ())
            value = entries.get(output, place, f"the output of {name!r}")
            return entries.put(output, place, self.watcher.at_point(name, value, own))

        return hook

    def _take(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        if self.watcher is None:
            return output
        if not isinstance(output, Tensor):
            raise PointError(
                f"the error is taken at the output of {type(module).__name__}, which is a {type(output).__name__}. "
                "Name a submodule of the last stage that returns one tensor: output=..."
            )
        return self.watcher.at_output(output)
