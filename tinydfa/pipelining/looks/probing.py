"""How the output answers to noise at the points of all stages: forward passes through the pipeline, without a graph.

The stages run forward once as they are, and again with noise at every point at once. The last stage tells all how the
output changed. Noise is that of one process: its generator draws for the points of all stages in their order, for the
whole batch, so that a stage draws what stands before its own and drops it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tinydfa.attaching.looks import generator_of
from tinydfa.feedback.learner import Moments, add, in_full
from tinydfa.passes.shapes import batch_first
from tinydfa.passes.undisturbed import set_aside
from tinydfa.pipelining.fed import Shape, sizes
from tinydfa.pipelining.looks.exact import in_rows
from tinydfa.pipelining.meeting import Agreed
from tinydfa.pipelining.points import BatchDims, Passed, like
from tinydfa.rules import Probe, Probed
from tinydfa.signals import spread

Answers = dict[str, list[Probed]]  # what noise has shown of one microbatch, by point


class Plain:
    """A pass as it is: notes what passes, and the output."""

    def __init__(self) -> None:
        self.points: list[Passed] = []
        self.output: Tensor | None = None
        self._last: Tensor | None = None

    def at_point(self, name: str, value: Tensor, batch_dims: BatchDims) -> Tensor:
        self.points.append(Passed(name, like(value), batch_dims, value.detach()))
        self._last = value
        return value

    def at_output(self, output: Tensor) -> Tensor:
        if self.points and self._last is output:  # such a point is the output, and has nothing to learn
            self.points.pop()
        self._last, self.output = None, output.detach()
        return output


class Noisy:
    """The same pass with noise at its points.

    Args:
        noise: Standard normal, at each, in order; points beyond these are left as they are.
        size: Its standard deviation.
    """

    def __init__(self, noise: Sequence[Tensor], size: float) -> None:
        self.noise, self.size = list(noise), size
        self.came: list[Tensor] = []  # the noise as it came out in the value's type
        self.output: Tensor | None = None

    def at_point(self, name: str, value: Tensor, batch_dims: BatchDims) -> Tensor:
        if len(self.came) == len(self.noise):
            return value
        noisy = value + self.noise[len(self.came)].to(value) * self.size
        self.came.append(noisy - value)
        return noisy

    def at_output(self, output: Tensor) -> Tensor:
        self.output = output.detach()
        return output


@contextmanager
def undisturbed(module: nn.Module, probe: Probe) -> Iterator[None]:
    """Inside this block the module runs without a graph, and nothing of it stays."""
    cached = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)  # what is cached without a graph would be used with one
    try:
        with torch.no_grad(), set_aside(module, keep_modes=probe.dropout):
            yield
    finally:
        torch.set_autocast_cache_enabled(cached)


def noises(agreed: Agreed, stage: int, parts: int, generator: torch.Generator) -> list[list[Tensor]]:
    """Standard normal numbers for the points of one stage, for each of the microbatches."""
    for of_stage in agreed.shapes[:stage]:
        for shape in whole(of_stage, agreed, parts):
            torch.randn(shape, generator=generator, dtype=torch.float32)
    found: list[list[Tensor]] = [[] for _ in range(parts)]
    dims = [first for (first, *_), _, _ in sizes(agreed.shapes[stage], agreed.columns.batch_dims)]
    for dim, shape in zip(dims, whole(agreed.shapes[stage], agreed, parts), strict=True):
        drawn = torch.randn(shape, generator=generator, dtype=torch.float32)
        for part, noise in enumerate(drawn.chunk(parts, dim=dim)):
            found[part].append(noise)
    return found


def whole(shapes: Sequence[Shape], agreed: Agreed, parts: int) -> list[list[int]]:
    """The shapes of the whole batch at some points."""
    found = []
    for (_, shape, _), ((first, *_), _, _) in zip(shapes, sizes(shapes, agreed.columns.batch_dims), strict=True):
        found.append([size * parts if number == first else size for number, size in enumerate(shape)])
    return found


def change_of(plain: Plain, noisy: Noisy, agreed: Agreed, size: float) -> Tensor:
    """How the output answered, ``[B, c]``, in units of the noise."""
    assert plain.output is not None
    assert noisy.output is not None
    assert agreed.learner is not None
    moved = batch_first(noisy.output - plain.output, agreed.columns.batch_dims)
    return (moved / size).reshape(agreed.shape).to(agreed.learner.matrix)


def answered(agreed: Agreed, plain: Plain, noisy: Noisy, change: Tensor, size: float) -> Iterator[Probed]:
    """How the output answered at every point of a stage, for the rows of one microbatch."""
    assert agreed.learner is not None
    matrix = agreed.learner.matrix
    shapes = [(point.name, tuple(point.like.shape), point.batch_dims) for point in plain.points]
    with in_full(matrix):
        for point, noise, (dims, rows, width) in zip(
            plain.points, noisy.came, sizes(shapes, agreed.columns.batch_dims), strict=True
        ):
            assert point.value is not None
            share = spread(change.new_ones(len(change), 1), rows)  # 1 / sqrt(k), see `tinydfa.attaching.looks`
            answer = spread(change, rows) / share.square()
            value, pushed = in_rows(point.value, dims, width, matrix), in_rows(noise, dims, width, matrix) / size
            yield Probed(point.name, pushed, answer, value, agreed.learner.feedback_of(point.name))


def output_of(plain: Plain, agreed: Agreed) -> Tensor:
    """The output of a pass as it is, ``[B, c]``."""
    assert plain.output is not None
    assert agreed.learner is not None
    output = batch_first(plain.output, agreed.columns.batch_dims)
    return output.reshape(agreed.shape).to(agreed.learner.matrix)


def as_it_is(agreed: Agreed, plain: Plain, output: Tensor) -> Iterator[Probed]:
    """The output for the rows of every point of a stage, spread over them as the error is; without noise."""
    assert agreed.learner is not None
    matrix = agreed.learner.matrix
    shapes = [(point.name, tuple(point.like.shape), point.batch_dims) for point in plain.points]
    for point, (dims, rows, width) in zip(plain.points, sizes(shapes, agreed.columns.batch_dims), strict=True):
        assert point.value is not None
        value = in_rows(point.value, dims, width, matrix)
        own = agreed.learner.feedback_of(point.name)
        yield Probed(point.name, torch.zeros_like(value), spread(output, rows), value, own)


def moments_of(agreed: Agreed, answers: Sequence[Answers]) -> Moments:
    """What the rule makes of a look that does not wait for the error."""
    assert agreed.learner is not None
    found: Moments = {}
    with torch.no_grad(), in_full(agreed.learner.matrix):
        for of_part in answers:
            for name, probes in of_part.items():
                for probed in probes:
                    add(found.setdefault(name, {}), agreed.learner.rule.probe_moments(probed))
    return found


def generator(seed: int, number: int, time: int) -> torch.Generator:
    """Of one pass with noise."""
    return generator_of("probe", seed, number, time, rank=0)
