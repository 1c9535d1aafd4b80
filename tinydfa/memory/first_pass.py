"""Training without stored graphs: the first pass, in which every point lets go of the graph below it.

What hangs between the last point and the head stays as it is, and so do the topmost graphs that fit in the budget. The
head joins them in a node that runs the model again (`tinydfa.replay`).
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from tinydfa.errors import ReplayError
from tinydfa.memory.again import Again
from tinydfa.memory.kept import Kept
from tinydfa.memory.probe import probe
from tinydfa.memory.replay import Pending, ReplayNode
from tinydfa.memory.second_run import AT_HEAD, Expected, Layout, Part
from tinydfa.memory.tangles import Tangles, Weight, address
from tinydfa.passes.forward_pass import Link, Record, Rows, in_backward
from tinydfa.passes.shapes import batch_first, count
from tinydfa.planning import Planned

if TYPE_CHECKING:
    from tinydfa.head import Head


CHEAP = 32  # so many times fewer weights than the model


def refuse_split_layers(made: Planned) -> None:
    """Refuse tensor parallelism, under which a process has a part of a point."""
    if made.ways is not None and any(way.part is not None for way in made.ways):
        raise ReplayError(
            "memory= is not made for tensor parallelism, under which a process has some columns of a layer. Use "
            "fully_shard, or leave memory= out."
        )


class Seen(NamedTuple):
    """A point in the first pass."""

    record: Record
    number: int  # of its graph in the tangles; -1 where no gradient is asked for
    sample: Tensor | None
    passed: weakref.ref[Tensor]


class FirstPass:
    """A forward pass that lets go of its graphs.

    Args:
        memory: The choice in force.
        link: What points and head share.
        again: How it is run once more.
        training: Which modules train, for what is learned of the model's buffers.
    """

    def __init__(self, memory: Kept, link: Link, again: Again, training: int) -> None:
        self.memory, self.link, self.again, self.training = memory, link, again, training
        self.seen: list[Seen] = []
        self.values: dict[int, Tensor] = {}  # with graphs that are kept, by place in `seen`
        self.sizes: dict[int, int] = {}  # of all graphs, in bytes
        self.tangles = Tangles(again.inputs)
        self._apart = {address(tensor) for tensor in again.model.parameters()} if memory.budget else set()
        self._below = -1  # where the value of the point before lies, if it counts there

    def at_point(self, point: Any, input: Tensor, rows: Rows | None) -> Tensor | None:
        """Note a point and let go of its graph; returns what it passes on."""
        if in_backward():
            return None
        current = self.link.current
        passed = input if point.passthrough else input.detach()
        graded = torch.is_grad_enabled()
        rows = rows if rows is not None else None if current.rows is None else current.rows_of(point)
        number, sample, stands = -1, None, None
        if graded and input.requires_grad:
            number, sample, stands = self._note(input), probe(input), stand_in(input)
        record = Record(point, stands, None, input.shape, rows, graded)
        self.seen.append(Seen(record, number, sample, weakref.ref(passed)))
        current.records.append(record)
        return passed

    def _note(self, value: Tensor) -> int:
        """Walk a point's graph, and keep the topmost ones within the budget."""
        if not self.memory.budget:
            return self.tangles.add([value])
        weight, here = Weight(self._apart, self._below), len(self.seen)
        number = self.tangles.add([value], weight)
        self.sizes[here], self.values[here], self._below = weight.bytes, value, weight.counted(value)
        held = sum([self.sizes[kept] for kept in self.values])
        for lowest in list(self.values):
            if held > self.memory.budget:
                held -= self.sizes[lowest]
                del self.values[lowest]
        return number

    def join(self, head: Head, outputs: list[Tensor]) -> list[Tensor]:
        """Join the outputs and the graphs that are kept in one node that runs the model again."""
        current = self.link.current
        target = current.take_target()
        head._note_skipped(current.take(), outputs)
        self._learn_buffers()
        self.again.refuse_changed_arguments("the forward pass")
        ends = self._ends(head, outputs)
        outputs = list(outputs)
        for place, number in ends.items():
            outputs[number] = self.values.get(place, outputs[number])
        top = self.tangles.add(outputs)
        groups = self.tangles.groups()
        gone = {groups[seen.number] for place, seen in enumerate(self.seen) if self._is_gone(place, seen)}
        if gone and not self.values and self._is_cheap(groups[top]):
            gone.add(groups[top])
        if groups[top] in gone:
            outputs = [output.detach() for output in outputs]
        self.values = {
            place: value
            for place, value in self.values.items()
            if groups[self.seen[place].number] not in gone and place not in ends
        }
        if not gone:
            return self._join_plainly(head, outputs, target, ends)
        layout, matrix, indices = self._layout(head, outputs, ends, groups, gone, groups[top])
        self.memory.layout = None if ends or indices else layout
        return self._join_for_replay(layout, outputs, matrix, target, indices)

    def _is_cheap(self, top: int) -> bool:
        """Whether what hangs between the last point and the head is better computed again than kept."""
        of_top = {id(leaf): leaf.numel() for leaf in self.tangles.below(top)}
        return sum(of_top.values()) * CHEAP <= sum([leaf.numel() for leaf in self.tangles.leaves.values()])

    def _is_gone(self, place: int, seen: Seen) -> bool:
        return seen.number >= 0 and place not in self.values

    def _ends(self, head: Head, outputs: list[Tensor]) -> dict[int, int]:
        """The points that are outputs themselves, and which."""
        if head.feeds_the_output:
            return {}
        found = {}
        for place, seen in enumerate(self.seen):
            passed = seen.passed()
            for number, output in enumerate(outputs):
                if seen.number >= 0 and passed is output:
                    found[place] = number
                    seen.record.point.is_output = True
        return found

    def _learn_buffers(self) -> None:
        changing = self.memory.changing
        if self.training not in changing:
            changing[self.training] = self.again.changed()
        self.again.keep(changing[self.training])

    def _records(self, ends: dict[int, int]) -> list[Record]:
        return [seen.record for place, seen in enumerate(self.seen) if place not in ends]

    def _join_plainly(
        self, head: Head, outputs: list[Tensor], target: Tensor | None, ends: dict[int, int]
    ) -> list[Tensor]:
        """Everything fits in the budget, or nothing asks for a gradient."""
        records = [
            seen.record._replace(value=self.values.get(place))
            for place, seen in enumerate(self.seen)
            if place not in ends
        ]
        return head.feed(outputs, records, target)

    def _layout(
        self,
        head: Head,
        outputs: list[Tensor],
        ends: dict[int, int],
        groups: list[int],
        gone: set[int],
        top: int,
    ) -> tuple[Layout, Tensor | None, list[Tensor]]:
        """What the second run does at each point."""
        settings, records = self.link.settings, self._records(ends)
        made = head._plan(outputs, records)
        refuse_split_layers(made)
        plan, matrix, indices, output_dims, point_dims = made[:5]
        supplied = iter(zip(plan.slots, point_dims, strict=True))
        expected, closing, kept = [], {}, []
        for place, seen in enumerate(self.seen):
            part = None
            if seen.number >= 0:
                group, number = groups[seen.number], ends.get(place, -1)
                slot, dims = next(supplied) if number < 0 else (None, output_dims[number])
                if place in self.values and slot is not None:
                    kept.append((slot._replace(leaf=self.values[place].is_leaf), dims))
                elif group in gone:
                    part, closing[group] = Part(group, slot, dims, number), place
            expected.append(Expected(seen.record.point, seen.record.shape, seen.sample, part))
        if top in gone:
            closing[top] = AT_HEAD
        like = torch.empty((), dtype=outputs[0].dtype, device=outputs[0].device)
        like = like.expand(count(outputs[0].shape, output_dims[0])[0], sum(plan.widths))
        layout = Layout(settings, plan, expected, closing, kept, output_dims, matrix, head, like)
        self._find_shared(layout, gone)
        return layout, matrix, indices

    def _find_shared(self, layout: Layout, gone: set[int]) -> None:
        inputs = {id(input) for input in self.again.inputs}
        below = {group: [leaf for leaf in self.tangles.below(group) if id(leaf) not in inputs] for group in gone}
        reached = {id(leaf): leaf for leaves in below.values() for leaf in leaves}
        layout.shared = [leaf for leaf in self.tangles.shared() if id(leaf) in reached]
        tied = {id(leaf) for leaf in layout.shared}
        layout.leaves = {group: leaves for group, leaves in below.items() if any(id(leaf) in tied for leaf in leaves)}
        layout.versions = [(leaf, leaf._version) for leaf in reached.values()]

    def _join_for_replay(
        self,
        layout: Layout,
        outputs: list[Tensor],
        matrix: Tensor | None,
        target: Tensor | None,
        indices: list[Tensor],
    ) -> list[Tensor]:
        rows = [batch_first(output, dims) for output, dims in zip(outputs, layout.output_dims, strict=True)]
        dims_of_kept = [dims for _, dims in layout.kept]
        values = [batch_first(value, dims) for value, dims in zip(self.values.values(), dims_of_kept, strict=True)]
        pending = Pending(self.link, self.again, layout)
        trigger = torch.empty(0, requires_grad=True)
        tensors = [*rows, *values, *self.again.inputs, *layout.shared]
        joined = ReplayNode.apply(pending, trigger, matrix, target, indices, *tensors)
        return [
            found if row is output else found.movedim(tuple(range(len(own))), own)
            for found, row, output, own in zip(joined, rows, outputs, layout.output_dims, strict=True)
        ]


def stand_in(value: Tensor) -> Tensor:
    """A tensor of the same shape, type and place that holds a single number."""
    one = torch.empty((), dtype=value.dtype, device=value.device, requires_grad=True)
    return one.expand(value.shape)  # no leaf
