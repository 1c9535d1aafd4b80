"""Layers whose input gradient goes through another matrix B than their own weight: what layer-wise rules train with.

    dL/dx = g @ B        with g = dL/dy, y = x @ W.T + b, B and W ``[out, in]``

B is a fixed random matrix, or has the signs of W with magnitudes of its own (`tinydfa.rules.layerwise`). The weight's
own gradient keeps its rule, ``g.T @ x``. The sign of a weight that is exactly 0 counts as positive where there are
magnitudes. `tinydfa.known_layers` says which layers compute such a product; `tinydfa.swap` gives each its B.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinydfa.errors import DFAError
from tinydfa.feedback.drawn import OWN, Distribution, Feedback
from tinydfa.passes.forward_pass import in_backward, transformed
from tinydfa.rules.layerwise import Layerwise, Magnitudes
from tinydfa.surroundings.sharded import is_distributed

OFFSETS = 65_536  # different draws of fresh magnitudes


TENSOR_PARALLEL = (
    "tensor parallelism leaves a part of a layer's weight in each process, and fa, frsf and brsf have a whole matrix "
    "beside it. Use a method that broadcasts (dfa, sdfa, tdfa, drtp), or shard the model by fully_shard instead."
)


class NoWeightError(DFAError, AttributeError):
    """A layer's weight is looked for in its feedback."""


class LayerFeedback(nn.Module):
    """What a layer sends its signal through. Its buffers move with the layer and are in no state_dict.

    Args:
        rule: The rule in force.
        drawn: A random matrix shaped as the weight; its magnitudes are used where the signs are the weight's. Of a rule
            whose B comes nearer to the weight, what it lacked of it at first.
        feedback: What it was drawn from.
        seed: Of this layer.
        passes: Forward passes so far, which number the fresh draws; of a B that comes nearer, those that train.
        like: The layer's weight.
    """

    matrix: Tensor | None  # B or |R|, shaped as the weight; of fresh magnitudes a longer row of |U|
    passes: Tensor

    def __init__(
        self, rule: Layerwise, drawn: Tensor, feedback: Feedback, seed: int, passes: Tensor, like: Tensor
    ) -> None:
        super().__init__()
        self.follows_signs, self.fresh, self.seed = rule.follows_signs, rule.magnitudes is Magnitudes.FRESH, seed
        self.approach = rule.approach
        self.size = glorot(like) if rule.magnitudes is Magnitudes.ONE else 1.0
        kept = kept_of(rule, drawn, feedback, seed)
        self.register_buffer("matrix", None if kept is None else kept.to(like), persistent=False)
        self.register_buffer("passes", passes.clone().to(like.device), persistent=False)

    def of_this_pass(self, weight: Tensor) -> Tensor | None:
        """The fixed or freshly drawn part of B; the sign of W is applied when it is needed."""
        if (self.fresh or self.approach is not None) and transformed():
            raise DFAError(
                "the feedback of brsf and kp changes in every pass, and inside torch.func (vmap, grad) a function "
                "must change nothing. Use fa, frsf or usf there, or call the model outside, with loss.backward()."
            )
        if is_distributed(weight) and self.matrix is not None:
            raise DFAError(TENSOR_PARALLEL)
        if self.counts() and not in_backward():
            self.passes += 1
        return self.part(weight)

    def counts(self) -> bool:
        """Whether a pass that runs now has a number of its own."""
        return self.fresh or (self.approach is not None and self.training and torch.is_grad_enabled())

    def __getattr__(self, name: str) -> Any:
        if name in ("weight", "bias"):  # tensor parallelism looks for them in every part of a layer
            raise NoWeightError(TENSOR_PARALLEL)
        return super().__getattr__(name)

    def part(self, weight: Tensor) -> Tensor | None:
        """What `of_this_pass` gave last."""
        if self.approach is not None:
            assert self.matrix is not None
            come = nearer if torch.compiler.is_compiling() else nearer_to
            return come(weight.detach(), self.matrix, self.passes, 1.0 - self.approach)
        if not self.fresh:
            return self.matrix
        take = magnitudes if torch.compiler.is_compiling() else magnitudes_of
        assert self.matrix is not None
        return take(self.matrix, self.passes, self.seed, weight.numel()).view(weight.shape)

    def whole(self, weight: Tensor, part: Tensor | None) -> Tensor:
        """B, shaped as the weight, from one of the two above."""
        with torch.no_grad():
            if not self.follows_signs:
                assert part is not None
                return part
            signs = weight.sign() if part is None else torch.copysign(part.to(weight.dtype), weight)
            return signs * self.size

    def arguments(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> list[Any]:
        """What the functions below take: how B is made, and tensors in autocast's type where it is in force."""
        tensors = [input, weight, bias, self.of_this_pass(weight)]
        kind = input.device.type
        if kind != "meta" and torch.is_autocast_enabled(kind):
            dtype = torch.get_autocast_dtype(kind)
            tensors = [tensor if tensor is None else tensor.to(dtype) for tensor in tensors]
        return [self.follows_signs, self.fresh, self.size, *tensors]


def linear(layer: Any, own: LayerFeedback, input: Tensor) -> Tensor:
    """The forward of a `Linear`, whose input gradient goes through B."""
    return _linear(*own.arguments(input, layer.weight, layer.bias))


def linear_transposed(layer: Any, own: LayerFeedback, input: Tensor) -> Tensor:
    """The same for ``x @ W + b`` with W ``[in, out]``."""
    *how, input, weight, bias, feedback = own.arguments(input, layer.weight, layer.bias)
    return _linear(*how, input, weight.T, bias, feedback if feedback is None else feedback.T)


def _linear(*arguments: Any) -> Tensor:
    return by_operations(F.linear, *arguments) if transformed() else _Linear.apply(*arguments)


def convolution(layer: Any, own: LayerFeedback, input: Tensor) -> Tensor:
    """The forward of a `Conv1d`, `Conv2d` or `Conv3d`, whose input gradient goes through B."""
    input, padding = padded(layer, input)
    alone = input.dim() == len(layer.stride) + 1  # one sample without a batch dimension
    input = input.unsqueeze(0) if alone else input
    *how, input, weight, bias, feedback = own.arguments(input, layer.weight, layer.bias)
    shape = (list(layer.stride), list(padding), list(layer.dilation), layer.groups)
    if transformed():
        arguments = [*how, input, weight, bias, feedback]
        output = by_operations(partial(convolved, shape), *arguments)
    else:
        output = _Conv.apply(*how, shape, input, weight, bias, feedback)
    return output.squeeze(0) if alone else output


def padded(layer: Any, input: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """The input with what a convolution cannot pad itself, and what it is still to pad."""
    if layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
        return input, layer.padding
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return F.pad(input, layer._reversed_padding_repeated_twice, mode=mode), (0,) * len(layer.stride)


def by_operations(
    compute: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    follows_signs: bool,
    fresh: bool,
    scale: float,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    feedback: Tensor | None,
) -> Tensor:
    """The same by tensor operations alone, as ``torch.func`` wants it.

    What is added is exactly 0, and has the gradient of a layer whose weight is B.
    """
    back = backward_weight(follows_signs, True, weight, feedback) * scale
    return joined(compute(input.detach(), weight, bias), compute(input, back.detach(), None))


def joined(output: Tensor, signal: Tensor) -> Tensor:
    """`output`, whose gradient also goes to `signal`."""
    return output + (signal - signal.detach()) if transformed() else Joined.apply(output, signal)


class Joined(torch.autograd.Function):
    """The output of a layer whose input was cut off, and a signal whose gradient is the input's."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, signal: Tensor) -> Tensor:
        return output.clone()  # not a view, which a layer above could not change in place

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (gradient,) = gradients
        return gradient, gradient


def glorot(weight: Tensor) -> float:
    """s = sqrt(2 / (fan_in + fan_out)), by which a signal keeps its size over layers."""
    fan_out, fan_in = weight.shape[0], math.prod(weight.shape[1:])
    positions = math.prod(weight.shape[2:])
    return math.sqrt(2.0 / (fan_in + fan_out * positions))


def draw(weight: Tensor, feedback: Feedback, seed: int) -> Tensor:
    """A random matrix shaped as `weight` with standard deviation s."""
    plain = Feedback(distribution=feedback.distribution, density=feedback.density, seed=seed)
    spread = {Distribution.UNIFORM: 3**0.5, Distribution.SPARSE: feedback.density**-0.5}
    unit = spread.get(Distribution.parse(feedback.distribution), 1.0)
    return plain.draw(weight.shape[0], math.prod(weight.shape[1:])).mul_(unit * glorot(weight)).view(weight.shape)


def kept_of(rule: Layerwise, drawn: Tensor, feedback: Feedback, seed: int) -> Tensor | None:
    """What a layer holds of its random matrix under `rule`."""
    if rule.magnitudes is Magnitudes.ONE:
        return None
    if rule.magnitudes is Magnitudes.FRESH:
        more = draw(drawn.new_empty(OFFSETS, 1), feedback, seed + 1).flatten() / glorot(drawn.new_empty(OFFSETS, 1))
        return torch.cat([drawn.flatten(), more * glorot(drawn)]).abs()
    return drawn.abs() if rule.follows_signs else drawn


def magnitudes_of(row: Tensor, passes: Tensor, seed: int, count: int) -> Tensor:
    """`count` magnitudes for one pass: a part of the layer's row of them, at a start that the pass decides.

    Every entry of B meets a new magnitude in every pass, at none of the cost of drawing `count` numbers.
    """
    generator = torch.Generator().manual_seed((seed * 1_000_003 + int(passes)) ^ OWN)
    start = int(torch.randint(0, row.numel() - count + 1, (1,), generator=generator))
    return row[start : start + count]


@torch.no_grad()
def nearer_to(weight: Tensor, lacking: Tensor, passes: Tensor, left: float) -> Tensor:
    """What lacks a share of `lacking`, of which `left` is left in every pass after the first."""
    base = torch.full((), left, dtype=weight.dtype, device=weight.device)
    return weight + base ** (passes - 1).clamp(min=0) * lacking


@torch.library.custom_op("tinydfa::nearer", mutates_args=())
def nearer(weight: Tensor, lacking: Tensor, passes: Tensor, left: float) -> Tensor:
    """`nearer_to`, where a compiler would compute it again in the backward pass, when `passes` has changed."""
    return nearer_to(weight, lacking, passes, left)


@nearer.register_fake
def _(weight: Tensor, lacking: Tensor, passes: Tensor, left: float) -> Tensor:
    return torch.empty_like(weight)


@torch.library.custom_op("tinydfa::magnitudes", mutates_args=())
def magnitudes(row: Tensor, passes: Tensor, seed: int, count: int) -> Tensor:
    """`magnitudes_of`, where a compiler must not look into it."""
    return magnitudes_of(row, passes, seed, count).clone()


@magnitudes.register_fake
def _(row: Tensor, passes: Tensor, seed: int, count: int) -> Tensor:
    return row.new_empty(count)


def backward_weight(follows_signs: bool, fresh: bool, weight: Tensor, feedback: Tensor | None) -> Tensor:
    """B up to its scale, ``[out, in, ...]``."""
    if feedback is None:
        return weight.sign()
    if not follows_signs:
        return feedback.to(weight.dtype)
    if fresh or torch.compiler.is_compiling() or feedback.dtype is not weight.dtype:
        return torch.copysign(feedback.to(weight.dtype), weight)
    return feedback.data.copysign_(weight)  # only its signs change, so every graph that holds it may see the change


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        follows_signs: bool,
        fresh: bool,
        scale: float,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        feedback: Tensor | None,
    ) -> Tensor:
        ctx.kind, ctx.scale = (follows_signs, fresh), scale
        ctx.save_for_backward(input, weight, feedback)
        return F.linear(input, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        (gradient,) = gradients
        input, weight, feedback = ctx.saved_tensors
        _, _, _, for_input, for_weight, for_bias, _ = ctx.needs_input_grad
        rows = gradient.reshape(-1, gradient.shape[-1])
        to_input = None
        if for_input:
            scaled = gradient if ctx.scale == 1.0 else gradient * ctx.scale
            follows_signs, fresh = ctx.kind
            to_input = scaled @ backward_weight(follows_signs, fresh, weight, feedback)
        to_weight = rows.T @ input.reshape(-1, input.shape[-1]) if for_weight else None
        return None, None, None, to_input, to_weight, rows.sum(0) if for_bias else None, None


Shape = tuple[list[int], list[int], list[int], int]  # stride, padding, dilation and groups of a convolution


def convolved(shape: Shape, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    stride, padding, dilation, groups = shape
    return torch.convolution(input, weight, bias, stride, padding, dilation, False, [0] * len(stride), groups)


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        follows_signs: bool,
        fresh: bool,
        scale: float,
        shape: Shape,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        feedback: Tensor | None,
    ) -> Tensor:
        ctx.kind, ctx.scale, ctx.shape = (follows_signs, fresh), scale, shape
        ctx.save_for_backward(input, weight, feedback)
        return convolved(shape, input, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        (gradient,) = gradients
        input, weight, feedback = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.shape
        wanted = [bool(flag) for flag in ctx.needs_input_grad[4:7]]
        follows_signs, fresh = ctx.kind
        back = backward_weight(follows_signs, fresh, weight, feedback) if wanted[0] else weight
        to_input, to_weight, to_bias = torch.ops.aten.convolution_backward(
            gradient,
            input,
            back,
            [weight.shape[0]],
            stride,
            padding,
            dilation,
            False,
            [0] * len(stride),
            groups,
            wanted,
        )
        if wanted[0] and ctx.scale != 1.0:
            to_input = to_input * ctx.scale
        return None, None, None, None, to_input, to_weight, to_bias, None
