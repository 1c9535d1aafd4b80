"""Passes that show a rule that learns what backpropagation would do (`tinydfa.rules.Learning`).

An exact pass is not cut: it trains by its exact gradient, and every point shows it beside the error. A probe runs the
model again on the same inputs, without a graph, with noise at its points, and shows how the output answers.

Only training passes look, and only they count: those of a model in training mode, with gradients, outside of
`backprop()`, of a measurement and of a recomputation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.autograd import Variable

from tinydfa.errors import DFAError
from tinydfa.feedback.drawn import generator_named
from tinydfa.feedback.learner import Learner, Moments, add, at_rows, in_full
from tinydfa.head import Head
from tinydfa.node import encode, rows_of
from tinydfa.passes.forward_pass import Link, Observation, Record, Rows, in_backward, through_points, transformed
from tinydfa.passes.shapes import batch_first
from tinydfa.passes.undisturbed import set_aside
from tinydfa.planning import Planned
from tinydfa.rules import Learning, Probe, Probed, Seen
from tinydfa.signals import Slot, gather, rows_in, spread

Call = Callable[..., Any]


def looking(model: nn.Module, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A pass of a model whose rule looks at some; `call` is the forward of the attached model."""
    head: Head = vars(model)["_attachment"].head
    link = head.link
    if torch.compiler.is_compiling():
        raise DFAError(
            f"{link.rule} looks at some passes in another way than at others, which one compiled graph cannot. Do not "
            "compile the model, or compile the submodules between its points."
        )
    if transformed():
        raise DFAError(
            f"{link.rule} looks at some passes and changes its feedback by them, which a pure function must not. Train "
            "by loss.backward(), or use a rule that does not learn (dfa, say) inside torch.func."
        )
    link.looks = False  # for the passes that make up this one
    try:
        if not trains(model, link):
            return call(*args, **kwargs)
        return counted(head, model, partial(call, *args, **kwargs))
    finally:
        link.looks = link.rule.looks


def trains(model: nn.Module, link: Link) -> bool:
    busy = link.still or link.suspended or link.observation is not None
    return model.training and torch.is_grad_enabled() and not busy and not in_backward()


def counted(head: Head, model: nn.Module, call: Call) -> Any:
    """A training pass."""
    rule: Any = head.link.rule
    number = head.forwards
    if head.learner is not None:
        head.learner.number = number
    output = exact(head, call) if is_exact(head, number) else call()
    if rule.probes(number):
        probed(head, model, call, rule.probe, number)
    head.forwards = number + 1
    return output


def is_exact(head: Head, number: int) -> bool:
    """Whether training pass `number` is not cut; a rule that adapts has said so at the end of the one before."""
    rule, learner = head.link.rule, head.learner
    if rule.adapts and learner is not None:  # type: ignore[attr-defined]
        return number >= learner.exact.next
    return rule.is_exact(number)  # type: ignore[attr-defined]


class Look(Observation):
    """What the points and the head note in a pass that is looked at.

    Args:
        noise: What is added to the value of a point; None: nothing.
        apart: The points that have nothing to learn, as they are the output.
    """

    def __init__(self, noise: Callable[[Tensor], Tensor] | None = None, apart: bool = True) -> None:
        super().__init__()
        self.noise, self.apart = noise, apart
        self.records: list[Record] = []
        self.noises: list[Tensor] = []

    def note(self, point: Any, value: Tensor, rows: Rows | None) -> Tensor:
        if self.noise is None:
            self.records.append(Record(point, value, value, value.shape, rows, torch.is_grad_enabled()))
            return value
        if point.is_output and self.apart:
            return value
        noisy = value + self.noise(value)
        self.noises.append(noisy - value)  # as it came out in this type
        return noisy


def exact(head: Head, call: Call) -> Any:
    """A pass that is not cut, and shows every point's gradient at the end of its backward pass."""
    link = head.link
    target = link.current.target
    with link.backprop(), link.observed(look := Look()):
        output = call()
    for record in look.records:
        if record.point.skipped is record.graded:
            record.point.skipped = not record.graded
    records = [record if has_gradient(record) else record._replace(value=None, passed=None) for record in look.records]
    outputs = through(head, records, look.at_head)
    fed = any([record.value is not None for record in records])  # noqa: C419
    if fed and any([found.requires_grad for found in outputs]):  # noqa: C419
        Gradients(head, outputs, records, target).wait()
    if head.learner is not None:
        head.learner.exact.passed(head.forwards)
    return output


def has_gradient(record: Record) -> bool:
    return record.graded and record.value is not None and record.value.requires_grad


def through(head: Head, records: list[Record], outputs: list[Tensor]) -> list[Tensor]:
    """Drop the records of points that are the output themselves."""
    return outputs if head.feeds_the_output else through_points(records, outputs)


class Gradients:
    """The gradients of one exact pass, gathered in its backward pass. It holds no graph."""

    def __init__(self, head: Head, outputs: list[Tensor], records: list[Record], target: Tensor | None) -> None:
        self.made = head.planned(outputs, records)
        self.head, self.target, self.task, self.number = head, target, -1, head.forwards
        self.outputs = [output.detach() for output in outputs]
        values = [record.value for record in records if record.value is not None]
        self.values = [value.detach() for value in values]
        self.errors: dict[int, Tensor] = {}
        self.deltas: dict[int, Tensor] = {}
        self.places: list[tuple[dict[int, Tensor], list[Tensor]]] = [
            (self.errors, [*outputs]),
            (self.deltas, [*values]),
        ]

    def wait(self) -> None:
        for found, tensors in self.places:
            for number, tensor in enumerate(tensors):
                if tensor.requires_grad:
                    tensor.register_hook(partial(self.arrived, found, number))
        self.places = []

    def arrived(self, found: dict[int, Tensor], number: int, gradient: Tensor) -> None:
        task = torch._C._current_graph_task_id()
        if task != self.task:  # whatever is left is of a backward pass that raised
            self.task = self.head.link.uncut = task
            self.errors.clear()
            self.deltas.clear()
            Variable._execution_engine.queue_callback(self.finish)
        found[number] = gradient.detach()

    @torch.no_grad()
    def finish(self) -> None:
        """The end of the backward pass."""
        learner = self.head.learner
        if self.head.link.rule.learns and learner is not None:
            with in_full(learner.matrix):
                learner.look_at_exact(self.shown(learner), self.number)
        self.errors.clear()
        self.deltas.clear()
        self.task = -1

    def shown(self, learner: Learner) -> Moments:
        """The moments that the rule makes of every point."""
        plan, dims = self.made.plan, self.made.outputs
        error = [self.errors.get(number, torch.zeros_like(output)) for number, output in enumerate(self.outputs)]
        rows = rows_of([batch_first(part, own) for part, own in zip(error, dims, strict=True)], plan.widths)
        scale = plan.loss_scale or 1.0
        encoded = encode(plan, rows, self.target).to(learner.matrix) / scale
        shown: Moments = {}
        for number, delta in sorted(self.deltas.items()):  # the same order on every process
            slot, own = plan.slots[number], self.made.points[number]
            count = rows_in(delta.shape, slot.width)
            some = self.chosen(count, learner.rule.rows, delta.device)
            value, gradient = (
                in_rows(tensor, own, slot, learner.matrix, some) for tensor in (self.values[number], delta)
            )
            gradient *= (len(rows) if plan.error_sum else 1) / scale
            at = at_rows(encoded, count, slot.sample, slot.group, self.made.indices)[some]
            add(shown.setdefault(slot.name, {}), learner.rule.moments(Seen(slot.name, at, value, gradient)))
        return shown

    def chosen(self, count: int, most: int, device: torch.device) -> Tensor | slice:
        """Which of so many rows are shown: the same of all points that have as many."""
        if most == 0 or count <= most:
            return slice(None)
        generator = generator_of("rows", self.head.link.settings.feedback.seed, self.number)
        return torch.randperm(count, generator=generator)[:most].to(device)


def in_rows(
    tensor: Tensor, dims: tuple[int, ...], slot: Slot, like: Tensor, some: Tensor | slice = slice(None)
) -> Tensor:
    """What passed a point, or its gradient, as ``[rows, d]`` in the type of the feedback; or some rows of it."""
    return batch_first(tensor, dims).reshape(-1, slot.width)[some].to(like, copy=True)


def probed(head: Head, model: nn.Module, call: Call, probe: Probe, number: int) -> None:
    """Run the model as it is and with noise, and show the difference; or as it is alone, and show the output."""
    with torch.no_grad(), head.link.backprop(), undisturbed(model, probe.dropout) as again:
        plain = Look()
        again(head.link, plain, call)
        records, outputs = plain.records, plain.at_head
        outputs = through(head, records, outputs)
        made = head.planned(outputs, records)
        shown: list[tuple[Probed, Tensor | None]] = []
        for time in range(probe.times):
            noise = partial(drawn, generator_of("probe", head.link.settings.feedback.seed, number, time), probe.size)
            look = Look(noise, apart=not head.feeds_the_output)
            again(head.link, look, call)
            with in_full(outputs[0]):
                shown += answered(head, made, records, outputs, look, probe.size)
        if probe.times == 0:
            with in_full(outputs[0]):
                shown += as_it_is(head, made, records, outputs)
    assert head.learner is not None
    if head.link.rule.awaits_error:  # type: ignore[attr-defined]
        await_error(head.learner, number, shown)
    else:
        with torch.no_grad(), in_full(head.learner.matrix):
            moments = moments_of(head.learner.rule, shown)
        head.learner.look(moments)


def await_error(learner: Learner, number: int, shown: Sequence[tuple[Probed, Tensor | None]]) -> None:
    """Keep what a probe showed until the backward pass of the same pass brings the error."""
    answers: dict[str, list[Probed]] = {}
    for probed, there in shown:
        change = probed.change if there is None else torch.where(there[:, None], probed.change, 0.0)
        answers.setdefault(probed.name, []).append(probed._replace(change=change))
    learner.awaiting = number, answers


def moments_of(rule: Learning, shown: Sequence[tuple[Probed, Tensor | None]]) -> Moments:
    """What a rule makes of the rows that have a sample."""
    moments: Moments = {}
    for probed, there in shown:
        rows = slice(None) if there is None else there
        some = probed._replace(noise=probed.noise[rows], change=probed.change[rows], value=probed.value[rows])
        add(moments.setdefault(probed.name, {}), rule.probe_moments(some))
    return moments


def answered(
    head: Head,
    made: Planned,
    records: Sequence[Record],
    outputs: Sequence[Tensor],
    look: Look,
    size: float,
) -> Iterator[tuple[Probed, Tensor | None]]:
    """How the output answered to noise at every point, and which of its rows have a sample (None: all)."""
    learner: Any = head.learner
    moved = [batch_first(now - then, own) for now, then, own in zip(look.at_head, outputs, made.outputs, strict=True)]
    change = rows_of([part / size for part in moved], made.plan.widths).to(learner.matrix)
    for slot, own, record, noise in zip(made.plan.slots, made.points, records, look.noises, strict=True):
        assert record.value is not None
        value = in_rows(record.value, own, slot, learner.matrix)
        pushed = in_rows(noise, own, slot, learner.matrix) / size
        answer, there = answers(change, len(value), slot, made.indices)
        yield Probed(slot.name, pushed, answer, value, learner.feedback_of(slot.name)), there


def as_it_is(
    head: Head, made: Planned, records: Sequence[Record], outputs: Sequence[Tensor]
) -> Iterator[tuple[Probed, Tensor | None]]:
    """What the output is for the rows of every point, spread over them as the error is; without noise."""
    learner: Any = head.learner
    parts = [batch_first(output, own) for output, own in zip(outputs, made.outputs, strict=True)]
    rows = rows_of(parts, made.plan.widths).to(learner.matrix)
    for slot, own, record in zip(made.plan.slots, made.points, records, strict=True):
        assert record.value is not None
        value = in_rows(record.value, own, slot, learner.matrix)
        there = answers(rows, len(value), slot, made.indices)[1]
        output = at_rows(rows, len(value), slot.sample, slot.group, made.indices)
        yield Probed(slot.name, torch.zeros_like(value), output, value, learner.feedback_of(slot.name)), there


def answers(change: Tensor, rows: int, slot: Slot, indices: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """The change of the output for each row of a point, ``[rows, c]``, and which rows have a sample (None: all).

    A sample with k rows sends each of them its error divided by sqrt(k), so that a row's F has to be sqrt(k) times the
    Jacobian, and so has its change. Of a group of k samples it is sqrt(k) times the mean change.
    """
    own = gather(change, indices[slot.group]) if slot.group >= 0 else change
    sample = indices[slot.sample] if slot.sample >= 0 else None
    share = spread(own.new_ones(len(own), 1), rows, sample)  # 1 / sqrt(k), 0 where there is no sample
    answer = spread(own, rows, sample) / share.square()
    return answer, None if sample is None else share[:, 0] > 0


def generator_of(*name: str | int, rank: int | None = None) -> torch.Generator:
    """Random numbers of one look: the same after a resumption, others on every process, unless `rank` says whose."""
    if rank is None:
        there = distributed.is_available() and distributed.is_initialized()
        rank = distributed.get_rank() if there else 0
    return generator_named(*name, rank)


def drawn(generator: torch.Generator, size: float, value: Tensor) -> Tensor:
    return torch.randn(value.shape, generator=generator, dtype=torch.float32).to(value) * size


Again = Callable[[Link, Look, Call], None]


@contextmanager
def undisturbed(model: nn.Module, dropout: bool) -> Iterator[Again]:
    """Inside this block the model can be run again and again under the same random numbers, without a trace."""
    cached = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)  # what is cached without a graph would be used with one
    try:
        with set_aside(model, keep_modes=dropout):
            yield partial(again, model)
    finally:
        torch.set_autocast_cache_enabled(cached)


def again(model: nn.Module, link: Link, look: Look, call: Call) -> None:
    devices: list[Any] = sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices), link.observed(look):
        call()
