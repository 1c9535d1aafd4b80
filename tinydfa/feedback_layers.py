"""Layers whose input gradient goes through another matrix B than their own weight: what layer-wise rules train with.

    dL/dx = g @ B        with g = dL/dy, y = x @ W.T + b, B and W ``[out, in]``

B is a fixed random matrix, or has the signs of W with magnitudes of its own (`tinydfa.rules.layerwise`). The weight's
own gradient keeps its rule, ``g.T @ x``. The sign of a weight that is exactly 0 counts as positive where there are
magnitudes. `tinydfa.swap` puts these classes in the place of a model's own and takes them away again.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from tinydfa.feedback import OWN, Distribution, Feedback
from tinydfa.passes import in_backward
from tinydfa.rules.layerwise import Layerwise, Magnitudes
from tinydfa.tracing import is_tracing

OFFSETS = 65_536  # different draws of fresh magnitudes


class LayerFeedback(nn.Module):
    """What a layer sends its signal through. Its buffers move with the layer and are in no state_dict.

    Args:
        rule: The rule in force.
        drawn: A random matrix shaped as the weight; its magnitudes are used where the signs are the weight's.
        feedback: What it was drawn from.
        seed: Of this layer.
        passes: Forward passes so far, which number the fresh draws.
        like: The layer's weight.
    """

    matrix: Tensor | None  # B or |R|, shaped as the weight; of fresh magnitudes a longer row of |U|
    passes: Tensor

    def __init__(
        self, rule: Layerwise, drawn: Tensor, feedback: Feedback, seed: int, passes: Tensor, like: Tensor
    ) -> None:
        super().__init__()
        self.follows_signs, self.fresh, self.seed = rule.follows_signs, rule.magnitudes is Magnitudes.FRESH, seed
        self.size = glorot(like) if rule.magnitudes is Magnitudes.ONE else 1.0
        kept = kept_of(rule, drawn, feedback, seed)
        self.register_buffer("matrix", None if kept is None else kept.to(like), persistent=False)
        self.register_buffer("passes", passes.clone().to(like.device), persistent=False)

    def of_this_pass(self, weight: Tensor) -> Tensor | None:
        """The fixed or freshly drawn part of B; the sign of W is applied when it is needed."""
        if not self.fresh:
            return self.matrix
        if not in_backward():
            self.passes += 1
        take = magnitudes if torch.compiler.is_compiling() else magnitudes_of
        assert self.matrix is not None
        return take(self.matrix, self.passes, self.seed, weight.numel()).view(weight.shape)


class _Swapped:
    """A layer that has a `LayerFeedback`."""

    layer_feedback: LayerFeedback

    def backward_inputs(self, input: Tensor) -> list[Tensor | None]:
        """Input, weight, bias and the layer's feedback, in autocast's type where it is in force."""
        layer: Any = self
        tensors = [input, layer.weight, layer.bias, self.layer_feedback.of_this_pass(layer.weight)]
        kind = input.device.type
        if torch.is_autocast_enabled(kind):
            dtype = torch.get_autocast_dtype(kind)
            tensors = [tensor if tensor is None else tensor.to(dtype) for tensor in tensors]
        return tensors


class FeedbackLinear(_Swapped, nn.Linear):
    """A `Linear` whose input gradient goes through B."""

    def forward(self, input: Tensor) -> Tensor:
        if is_tracing():
            return super().forward(input)
        own = self.layer_feedback
        return _Linear.apply(own.follows_signs, own.fresh, own.size, *self.backward_inputs(input))


class _ConvForward(_Swapped):
    def forward(self, input: Tensor) -> Tensor:
        conv: Any = self
        if is_tracing():
            return super().forward(input)  # type: ignore[misc]
        padding = conv.padding
        if conv.padding_mode != "zeros" or isinstance(padding, str):
            mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
            input = F.pad(input, conv._reversed_padding_repeated_twice, mode=mode)
            padding = (0,) * len(conv.stride)
        alone = input.dim() == len(conv.stride) + 1  # one sample without a batch dimension
        tensors = self.backward_inputs(input.unsqueeze(0) if alone else input)
        shape = (list(conv.stride), list(padding), list(conv.dilation), conv.groups)
        own = self.layer_feedback
        output = _Conv.apply(own.follows_signs, own.fresh, own.size, shape, *tensors)
        return output.squeeze(0) if alone else output


class FeedbackConv1d(_ConvForward, nn.Conv1d):
    """A `Conv1d` whose input gradient goes through B."""


class FeedbackConv2d(_ConvForward, nn.Conv2d):
    """A `Conv2d` whose input gradient goes through B."""


class FeedbackConv3d(_ConvForward, nn.Conv3d):
    """A `Conv3d` whose input gradient goes through B."""


_CLASSES: dict[type, Any] = {
    nn.Linear: FeedbackLinear,
    nn.Conv1d: FeedbackConv1d,
    nn.Conv2d: FeedbackConv2d,
    nn.Conv3d: FeedbackConv3d,
}


# Layers of other libraries that compute what torch's do, from the same attributes; by name, for none is imported here.
_ELSEWHERE: dict[str, type[nn.Module]] = {"torch_geometric.nn.dense.linear.Linear": nn.Linear}


def register_feedback_layer(kind: type[nn.Module], base: type[nn.Module]) -> None:
    """Let layer-wise rules treat layers of a class of yours as they treat `base`, a Linear or Conv of torch.

    The class must compute what `base` computes, from attributes of the same names.
    """
    _CLASSES[kind] = type(f"Feedback{kind.__name__}", (_Swapped, kind), {"forward": _CLASSES[base].forward})


def swapped_class(layer: nn.Module) -> type | None:
    """The feedback class for a layer, or None.

    A subclass counts as long as it keeps its base's `forward`. The projection inside `nn.MultiheadAttention` does not
    count: its `forward` is never called.
    """
    kind: Any = type(layer)
    if kind not in _CLASSES and kind is not NonDynamicallyQuantizableLinear:
        base = next((b for b in _CLASSES if issubclass(kind, b) and kind.forward is vars(b).get("forward")), None)
        base = _ELSEWHERE.get(f"{kind.__module__}.{kind.__qualname__}", base)
        if base is not None:
            register_feedback_layer(kind, base)
    return _CLASSES.get(kind)


def own_class(layer: nn.Module) -> type:
    """The class that a swapped layer had."""
    return next(base for base, swapped in _CLASSES.items() if swapped is type(layer))


def keeps_its_weights(module: nn.Module) -> bool:
    """Whether a signal on its way down meets this module's own weight matrices."""
    matrices = any(p.dim() > 1 for p in module.parameters(recurse=False))
    return matrices and not isinstance(module, _Swapped | nn.Embedding | nn.EmbeddingBag)


def glorot(weight: Tensor) -> float:
    """s = sqrt(2 / (fan_in + fan_out)), by which a signal keeps its size over layers."""
    fan_out, fan_in = weight.shape[0], weight[0].numel()
    positions = weight[0, 0].numel() if weight.dim() > 2 else 1
    return math.sqrt(2.0 / (fan_in + fan_out * positions))


def draw(weight: Tensor, feedback: Feedback, seed: int) -> Tensor:
    """A random matrix shaped as `weight` with standard deviation s."""
    plain = Feedback(distribution=feedback.distribution, density=feedback.density, seed=seed)
    spread = {Distribution.UNIFORM: 3**0.5, Distribution.SPARSE: feedback.density**-0.5}
    unit = spread.get(Distribution.parse(feedback.distribution), 1.0)
    return plain.draw(weight.shape[0], weight[0].numel()).mul_(unit * glorot(weight)).view(weight.shape)


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


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        follows_signs: bool,
        fresh: bool,
        scale: float,
        shape: tuple[list[int], list[int], list[int], int],
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        feedback: Tensor | None,
    ) -> Tensor:
        ctx.kind, ctx.scale, ctx.shape = (follows_signs, fresh), scale, shape
        ctx.save_for_backward(input, weight, feedback)
        stride, padding, dilation, groups = shape
        return torch.convolution(input, weight, bias, stride, padding, dilation, False, [0] * len(stride), groups)

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
