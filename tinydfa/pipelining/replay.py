"""Training a stage without stored graphs (`memory="replay"`): each microbatch runs forward again at its W.

    F   the graph of each block is freed at its point; what lies above the last point is backpropagated at once
    W   the stage runs again, and each block is backpropagated as soon as it has run, as its signal is known

Points whose graphs hang together (a residual stream around a point) are backpropagated together, see
`tinydfa.memory.tangles`. A stage then holds the inputs of its microbatches, and the graph of one block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tinydfa.errors import ReplayError
from tinydfa.memory.again import Again
from tinydfa.memory.probe import differ, probe
from tinydfa.memory.second_run import Replayed
from tinydfa.memory.tangles import Tangles
from tinydfa.passes.shapes import batch_first
from tinydfa.pipelining.fed import Signal, Trained
from tinydfa.pipelining.points import BatchDims, Cut, Passed, StagePoints, like

UNKNOWN = -2


class Forgetting(Cut):
    """A forward pass that keeps no graph below its points.

    Args:
        final: The point, by its place, that is the output itself, so that its graph is kept until the output has come;
            -1 where there is none, `UNKNOWN` in the first pass.

    Attributes:
        again: What runs the stage once more.
        samples: Of the values at every point, by which the second run is recognised.
    """

    def __init__(self, final: int) -> None:
        super().__init__()
        self.final = final
        self.again: Again | None = None
        self.samples: list[Tensor] = []
        self.numbers: list[int] = []
        self.tangles = Tangles(())
        self._kept: Tensor | None = None

    def at_point(self, name: str, value: Tensor, batch_dims: BatchDims) -> Tensor:
        self._last = value.detach()
        self._kept = value if self.final in (UNKNOWN, len(self.points)) else None
        self.points.append(Passed(name, like(value), batch_dims))
        self.samples.append(probe(value))
        self.numbers.append(self.tangles.add([value]))
        return self._last

    def at_output(self, output: Tensor) -> Tensor:
        found = super().at_output(output)
        self.final = -1 if self.final == UNKNOWN else self.final
        self._kept = None
        return found

    def _uncut(self, point: Passed) -> Tensor:
        assert self._kept is not None
        self.samples.pop()
        self.final = len(self.points)
        return self._kept

    def closing(self, found: Sequence[Trained]) -> dict[int, int]:
        """For every trained point the last one that hangs together with it, by their places."""
        groups = self.tangles.groups()
        last = {groups[self.numbers[point.place]]: point.place for point in found}
        return {point.place: last[groups[self.numbers[point.place]]] for point in found}


class Second:
    """The second run of a stage.

    Args:
        first: The first.
        found: The points that are trained.
        signal: What makes their signals.
    """

    def __init__(self, first: Forgetting, found: Sequence[Trained], signal: Signal) -> None:
        self.first, self.signal = first, signal
        self.fed = {point.place: point for point in found}
        self.closing = first.closing(found)
        self.left = len(self.fed)
        self.place = 0
        self._open: dict[int, tuple[list[Tensor], list[Tensor]]] = {}

    def at_point(self, name: str, value: Tensor, batch_dims: BatchDims) -> Tensor:
        place, self.place = self.place, self.place + 1
        self._compare(place, name, value)
        if place in self.fed:
            point = self.fed[place]
            turned = batch_first(value, point.dims)
            signal = self.signal(point, turned.detach())
            values, signals = self._open.setdefault(self.closing[place], ([], []))
            values.append(turned)
            signals.append(signal)
            self.left -= 1
            if self.closing[place] == place:
                torch.autograd.backward(*self._open.pop(place))
            if self.left == 0:
                raise Replayed
        return value.detach()

    def at_output(self, output: Tensor) -> Tensor:
        return output

    def _compare(self, place: int, name: str, value: Tensor) -> None:
        known = self.first.points
        if place >= len(known) or known[place].name != name or known[place].like.shape != value.shape:
            raise other_way(f"feedback point {name!r} came where another did, or in another shape")
        if known[place].like.graded != value.requires_grad or differ(self.first.samples[place], probe(value)):
            raise other_way(f"at feedback point {name!r} the values are others")


def other_way(what: str) -> ReplayError:
    return ReplayError(
        f"the stage did not do the same when it ran forward again: {what}. Under memory='replay' it must be "
        "repeatable: randomness from torch's generators alone, no state outside its buffers. Mend that, or leave out "
        "memory=."
    )


class Replays:
    """The second runs of a stage, and what it has learned of its module.

    Args:
        points: The stage's.
        last: Whether it is the last stage.
    """

    def __init__(self, points: StagePoints, last: bool) -> None:
        self.points = points
        self._final = UNKNOWN if last else -1
        self._changing: list[str] | None = None  # names of the buffers that a pass changes
        points.module.register_forward_pre_hook(self._begins, with_kwargs=True)

    def first(self) -> Forgetting:
        """For a forward pass."""
        return Forgetting(self._final)

    def _begins(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        watcher = self.points.watcher
        if isinstance(watcher, Forgetting):
            watcher.again = Again(module, module.forward, args, kwargs, self._changing)

    def ended(self, first: Forgetting) -> None:
        """A first run is over: what it has written to is known now."""
        again = first.again
        assert again is not None
        again.refuse_changed_arguments("the stage")
        self._final = first.final
        if self._changing is None:
            self._changing = again.changed()
            again.keep(self._changing)

    def run(self, first: Forgetting, found: Sequence[Trained], signal: Signal) -> None:
        """Run forward again, and backpropagate each block as soon as it has run."""
        if not found:
            return
        second = Second(first, found, signal)
        again = first.again
        assert again is not None
        with self.points.watched(second):
            try:
                again.run({})
            except Replayed:
                return
        raise other_way(f"it ended before {len(first.points) - second.place} of its points")
