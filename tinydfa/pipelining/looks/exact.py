"""A step of backpropagation through the stages, by torch's own schedule, in which every point notes its exact gradient.

Rules that look at backpropagation now and then (`exact_every`) train by such a step. Its schedule is 1F1B, or GPipe
where there are fewer microbatches than stages, so that stages wait for one another as they always do there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe

from tinydfa.attaching.looks import generator_of
from tinydfa.errors import PointError
from tinydfa.feedback.learner import Moments, add, in_full
from tinydfa.passes.shapes import batch_first
from tinydfa.passes.undisturbed import state_kept
from tinydfa.pipelining.exchange import Exchange
from tinydfa.pipelining.fed import shapes_of, sizes
from tinydfa.pipelining.meeting import Agreed
from tinydfa.pipelining.points import BatchDims, Passed, StagePoints, like
from tinydfa.pipelining.traffic import Batch
from tinydfa.rules import Seen
from tinydfa.signals import spread


class Noted:
    """What the points of a stage show of one microbatch: what passed, and what backpropagation brings to it.

    Attributes:
        points: What passed.
        deltas: The gradient at each of them that has one, by its place.
        error: e at the output of the last stage.
    """

    def __init__(self) -> None:
        self.points: list[Passed] = []
        self.deltas: dict[int, Tensor] = {}
        self.error: Tensor | None = None
        self.output: Tensor | None = None  # without its graph
        self._last: Tensor | None = None

    def at_point(self, name: str, value: Tensor, batch_dims: BatchDims) -> Tensor:
        if value.requires_grad:
            value.register_hook(partial(self._arrived, len(self.points)))
        self.points.append(Passed(name, like(value), batch_dims, value.detach()))
        self._last = value
        return value

    def at_output(self, output: Tensor) -> Tensor:
        if self.points and self._last is output:  # such a point feeds nothing: it is the output
            self.points.pop()
        self._last, self.output = None, output.detach()
        if output.requires_grad:
            output.register_hook(self._error_arrived)
        return output

    def _arrived(self, place: int, gradient: Tensor) -> None:
        self.deltas[place] = gradient.detach()

    def _error_arrived(self, gradient: Tensor) -> None:
        self.error = gradient.detach()


class Exact:
    """The exact steps of one stage.

    Args:
        stage: The stage of the pipeline; the steps are made on another one of the same module.
        points: The stage's.
        microbatches: M.
        loss_fn: As the schedule was given it.
        averaged: The loss counts 1/M.
        exchange: The group of the stages.
    """

    def __init__(
        self,
        stage: Any,
        points: StagePoints,
        microbatches: int,
        loss_fn: Callable[..., Tensor] | None,
        averaged: bool,
        exchange: Exchange,
    ) -> None:
        self.points, self.exchange, self.loss_fn = points, exchange, loss_fn
        self.stage = another(stage, exchange.group)
        self.share = 1.0 / microbatches if averaged else 1.0
        kind = Schedule1F1B if microbatches >= stage.num_stages else ScheduleGPipe
        self.schedule = kind(self.stage, microbatches, self._loss, scale_grads=False)
        self.noted: list[Noted] = []
        self._forward = self.stage.forward_one_chunk
        self.stage.forward_one_chunk = self._noted_forward

    def run(self, batch: Batch) -> tuple[list[Noted], list[Tensor]]:
        """Add the exact gradients of a step to the weights; returns what the points noted, and the losses.

        Args:
            batch: The whole batch in parts, as the schedule has it.
        """
        stage, schedule, self.noted = self.stage, self.schedule, []
        stage.has_backward = True
        stage.clear_runtime_states()
        losses: list[Tensor] = []
        with self.exchange.answering("a neighbour", beside_work=True):
            with state_kept(stage.submod):  # torch runs the module once, on numbers that mean nothing
                schedule._initialize_stage(batch.args[0], batch.kwargs[0], batch.target(0), batch.loss_kwargs)
            self.noted.clear()
            schedule._step_microbatches(
                batch.args,
                batch.kwargs,
                batch.targets,
                losses,
                batch.return_outputs,
                loss_kwargs=batch.loss_kwargs,
            )
        if stage.is_last and any(noted.error is None for noted in self.noted):
            raise PointError("the loss does not depend on the output that the error is taken at. Name another output.")
        noted, self.noted = self.noted, []
        return noted, [loss.detach() / self.share for loss in losses]

    @property
    def outputs(self) -> list[Any]:
        """What the last stage returned, without its graph."""
        return [one.detach() if isinstance(one, Tensor) else one for one in self.stage.output_chunks]

    def _loss(self, output: Any, target: Any, **others: Any) -> Tensor:
        assert self.loss_fn is not None
        return self.loss_fn(output, target, **others) * self.share

    def _noted_forward(self, *args: Any, **kwargs: Any) -> Any:
        self.noted.append(Noted())
        with self.points.watched(self.noted[-1]):
            return self._forward(*args, **kwargs)


def another(stage: Any, group: Any) -> Any:
    """Another stage of the same module, with buffers of its own, for gradients come back to it."""
    if hasattr(stage, "pipe_info"):
        return type(stage)(stage.submod, stage.stage_index, stage.pipe_info, stage.device, group)
    return PipelineStage(stage.submod, stage.stage_index, stage.num_stages, stage.device, group=group)


def shown(agreed: Agreed, noted: Sequence[Noted], encoded: Sequence[Tensor], seed: int, number: int) -> Moments:
    """The moments that the rule makes of an exact step of the whole batch.

    Args:
        agreed: What the stage knows of the whole.
        noted: What its points noted of every microbatch.
        encoded: The encoded error of each, ``[B, c]``.
        seed: Of the feedback.
        number: Of the step; both decide which rows are shown, where not all are.
    """
    learner = agreed.learner
    assert learner is not None
    found: Moments = {}
    columns, rule = agreed.columns, learner.rule
    with torch.no_grad(), in_full(learner.matrix):
        for part, (one, s) in enumerate(zip(noted, encoded, strict=True)):
            error = s.to(learner.matrix)
            for place, (dims, rows, width) in enumerate(sizes(shapes_of(one.points), columns.batch_dims)):
                if place not in one.deltas:
                    continue
                some = chosen(rows * len(noted), rule.rows, seed, number)
                mine = slice(None) if some is None else some[(some >= part * rows) & (some < (part + 1) * rows)]
                mine = mine if isinstance(mine, slice) else (mine - part * rows).to(error.device)
                name, value = one.points[place].name, one.points[place].value
                assert value is not None
                at, seen = spread(error, rows)[mine], in_rows(value, dims, width, learner.matrix)[mine]
                gradient = in_rows(one.deltas[place], dims, width, learner.matrix)[mine]
                if columns.feedback.error_sum:
                    gradient = gradient * (len(error) * len(noted))
                add(found.setdefault(name, {}), rule.moments(Seen(name, at, seen, gradient)))
    return found


def chosen(count: int, most: int, seed: int, number: int) -> Tensor | None:
    """Which of the rows of the whole batch are shown, as in one process; None: all."""
    if most == 0 or count <= most:
        return None
    return torch.randperm(count, generator=generator_of("rows", seed, number, rank=0))[:most]


def in_rows(tensor: Tensor, dims: tuple[int, ...], width: int, like: Tensor) -> Tensor:
    """What passed a point, or its gradient, as ``[rows, d]`` in the type of the feedback."""
    return batch_first(tensor, dims).reshape(-1, width).to(like)
