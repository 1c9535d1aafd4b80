"""Feedback alignment layer by layer: `fa`, `usf`, `brsf`, `frsf`.

The signal walks down the network as in backpropagation, but through another matrix than the transposed weight:

    dL/dx = g @ B        with g = dL/dy, y = x @ W.T + b, B and W ``[out, in]``
    fa    B fixed and random                        (Lillicrap 2016)
    usf   B = s sign(W)                             (Liao 2016, uniform sign-concordant)
    brsf  B = |U| sign(W), U redrawn every pass     (Liao 2016, batch-wise random magnitude)
    frsf  B = |R| sign(W), R fixed and random       (Moskovitz 2018)

The weight's own gradient keeps its rule, ``g.T @ x``. R, U and the random B have standard
deviation s = sqrt(2 / (fan_in + fan_out)), the scale of Glorot's initialisation, so that a signal keeps its size over
layers. The sign of a weight that is exactly 0 counts as positive under `brsf` and `frsf`.
Layers are swapped in place, by their class, and swapped back: parameters, their names and hooks stay where they are.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.nn.parameter import is_lazy

from tinydfa.errors import DFAError, PointError
from tinydfa.feedback import OWN, Distribution, Feedback
from tinydfa.methods import Method
from tinydfa.points import in_backward

OFFSETS = 65_536  # different draws of `brsf`


class _Walk:
    """What a swapped layer knows beyond its base class."""

    walk_method: Method
    walk_seed: int
    walk_size: float  # s
    walk_feedback: Tensor | None  # B or |R|, shaped as the weight; under `brsf` a longer row of |U|
    walk_passes: Tensor  # forward passes so far, which numbers the draws of `brsf`

    def feedback_weight(self) -> tuple[Tensor | None, float]:
        """The fixed or freshly drawn part of B, and its scale; the sign of W is applied when it is needed."""
        weight: Tensor = self.weight  # type: ignore[attr-defined]
        if self.walk_method is Method.USF:
            return None, self.walk_size
        if self.walk_method is not Method.BRSF:
            return self.walk_feedback, 1.0
        if not in_backward():
            self.walk_passes += 1
        stretch = magnitudes if torch.compiler.is_compiling() else stretch_of
        assert self.walk_feedback is not None
        fresh = stretch(self.walk_feedback, self.walk_passes, self.walk_seed, weight.numel())
        return fresh.view(weight.shape), 1.0

    def walk_inputs(self, input: Tensor) -> tuple[list[Tensor | None], float]:
        feedback, scale = self.feedback_weight()
        layer: Any = self
        tensors = [input, layer.weight, layer.bias, feedback]
        kind = input.device.type
        if torch.is_autocast_enabled(kind):
            dtype = torch.get_autocast_dtype(kind)
            tensors = [tensor if tensor is None else tensor.to(dtype) for tensor in tensors]
        return tensors, scale


class FeedbackLinear(_Walk, nn.Linear):
    """A `Linear` whose input gradient goes through B."""

    def forward(self, input: Tensor) -> Tensor:
        tensors, scale = self.walk_inputs(input)
        return _Linear.apply(self.walk_method, scale, *tensors)


class _ConvForward(_Walk):
    def forward(self, input: Tensor) -> Tensor:
        conv: Any = self
        padding = conv.padding
        if conv.padding_mode != "zeros" or isinstance(padding, str):
            mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
            input = F.pad(input, conv._reversed_padding_repeated_twice, mode=mode)
            padding = (0,) * len(conv.stride)
        alone = input.dim() == len(conv.stride) + 1  # one sample without a batch dimension
        tensors, scale = self.walk_inputs(input.unsqueeze(0) if alone else input)
        shape = (list(conv.stride), list(padding), list(conv.dilation), conv.groups)
        output = _Conv.apply(self.walk_method, scale, shape, *tensors)
        return output.squeeze(0) if alone else output


class FeedbackConv1d(_ConvForward, nn.Conv1d):
    """A `Conv1d` whose input gradient goes through B."""


class FeedbackConv2d(_ConvForward, nn.Conv2d):
    """A `Conv2d` whose input gradient goes through B."""


class FeedbackConv3d(_ConvForward, nn.Conv3d):
    """A `Conv3d` whose input gradient goes through B."""


_SWAPS: dict[type, Any] = {
    nn.Linear: FeedbackLinear,
    nn.Conv1d: FeedbackConv1d,
    nn.Conv2d: FeedbackConv2d,
    nn.Conv3d: FeedbackConv3d,
}


def swapped_class(layer: nn.Module) -> type | None:
    """The feedback class for a layer, or None.

    A subclass counts as long as it keeps its base's `forward`; so does the `Linear` of PyTorch Geometric, which
    computes what torch's does. The projection inside `nn.MultiheadAttention` does not: its `forward` is never called.
    """
    kind: Any = type(layer)
    if kind not in _SWAPS:
        base = next((base for base in _SWAPS if issubclass(kind, base) and kind.forward is vars(base)["forward"]), None)
        if f"{kind.__module__}.{kind.__qualname__}" == "torch_geometric.nn.dense.linear.Linear":
            base = nn.Linear
        if base is not None and kind is not NonDynamicallyQuantizableLinear:
            _SWAPS[kind] = type(f"Feedback{kind.__name__}", (_Walk, kind), {"forward": _SWAPS[base].forward})
    return _SWAPS.get(kind)


def swap(model: nn.Module, method: Method, feedback: Feedback, state: dict[str, Tensor]) -> dict[str, nn.Module]:
    """Give every Linear and Conv layer of `model` its feedback matrix, taken from `state` where it is there.

    Returns:
        The swapped layers by name.

    Raises:
        PointError: `model` has no layer of those kinds.
        DFAError: A lazy layer has no shape yet.
    """
    lazy = [name for name, parameter in model.named_parameters() if is_lazy(parameter)]
    if lazy:
        raise DFAError(
            f"{', '.join(lazy)} have no shape yet, so {method} cannot draw matrices of the same shape. Run the model "
            "once, then attach."
        )
    layers = {name: layer for name, layer in model.named_modules() if swapped_class(layer) is not None}
    if not layers:
        raise PointError(
            f"{method} replaces the backward pass of Linear and Conv1d/2d/3d layers, and {type(model).__name__} has "
            "none. Use a method that broadcasts (dfa, sdfa, tdfa, drtp), or build the model of those layers."
        )
    for number, (name, layer) in enumerate(layers.items()):
        any_layer: Any = layer
        weight = any_layer.weight
        any_layer.walk_method = method
        any_layer.walk_seed = feedback.seed * 65_537 + number + 1
        any_layer.walk_size = glorot(weight)
        drawn = state.get(f"{name}.feedback")
        if drawn is None:
            drawn = draw(weight, feedback, any_layer.walk_seed)
        fixed = kept(method, drawn, feedback, any_layer.walk_seed)
        passes = state.get(f"{name}.passes", torch.zeros((), dtype=torch.int64))
        state[f"{name}.feedback"] = drawn
        layer.register_buffer("walk_feedback", None if fixed is None else fixed.to(weight), persistent=False)
        layer.register_buffer("walk_passes", passes.clone().to(weight.device), persistent=False)
        layer.__class__ = swapped_class(layer)
    left = [name or type(model).__name__ for name, module in model.named_modules() if keeps_its_weights(module)]
    if left:
        warnings.warn(
            f"{method} replaces the backward pass of Linear and Conv layers. The signal still passes these by their "
            f"own weights, as in backpropagation: {', '.join(left)}.",
            stacklevel=4,
        )
    return layers


def keeps_its_weights(module: nn.Module) -> bool:
    """Whether a signal on its way down meets this module's own weight matrices."""
    matrices = any(p.dim() > 1 for p in module.parameters(recurse=False))
    return matrices and not isinstance(module, _Walk | nn.Embedding | nn.EmbeddingBag)


def swap_back(layers: dict[str, nn.Module], state: dict[str, Tensor]) -> None:
    """Undo `swap`, keeping in `state` how many passes each layer has made."""
    state.update(passes(layers))
    for layer in layers.values():
        layer.__class__ = next(base for base, swapped in _SWAPS.items() if swapped is type(layer))
        for key in ("walk_feedback", "walk_passes"):
            del layer._buffers[key]
            layer._non_persistent_buffers_set.discard(key)
        for key in ("walk_method", "walk_seed", "walk_size"):
            delattr(layer, key)


def passes(layers: dict[str, nn.Module]) -> dict[str, Tensor]:
    """How many forward passes each swapped layer has made, under the keys of a saved state."""
    return {f"{name}.passes": layer.get_buffer("walk_passes").cpu().clone() for name, layer in layers.items()}


def glorot(weight: Tensor) -> float:
    fan_out, fan_in = weight.shape[0], weight[0].numel()
    positions = weight[0, 0].numel() if weight.dim() > 2 else 1
    return math.sqrt(2.0 / (fan_in + fan_out * positions))


def draw(weight: Tensor, feedback: Feedback, seed: int) -> Tensor:
    """A random matrix shaped as `weight` with standard deviation s."""
    plain = Feedback(distribution=feedback.distribution, density=feedback.density, seed=seed)
    spread = {Distribution.UNIFORM: 3**0.5, Distribution.SPARSE: feedback.density**-0.5}
    unit = spread.get(Distribution.parse(feedback.distribution), 1.0)
    return plain.draw(weight.shape[0], weight[0].numel()).mul_(unit * glorot(weight)).view(weight.shape)


def kept(method: Method, drawn: Tensor, feedback: Feedback, seed: int) -> Tensor | None:
    """What a layer holds of its random matrix under `method`."""
    if method is Method.USF:
        return None
    if method is Method.BRSF:
        more = draw(drawn.new_empty(OFFSETS, 1), feedback, seed + 1).flatten() / glorot(drawn.new_empty(OFFSETS, 1))
        return torch.cat([drawn.flatten(), more * glorot(drawn)]).abs()
    return drawn if method is Method.FA else drawn.abs()


def stretch_of(row: Tensor, passes: Tensor, seed: int, count: int) -> Tensor:
    """`count` magnitudes for one pass: a stretch of the layer's row of them, at a start that the pass decides.

    Every entry of B meets a new magnitude in every pass, at none of the cost of drawing `count` numbers.
    """
    generator = torch.Generator().manual_seed((seed * 1_000_003 + int(passes)) ^ OWN)
    start = int(torch.randint(0, row.numel() - count + 1, (1,), generator=generator))
    return row[start : start + count]


@torch.library.custom_op("tinydfa::magnitudes", mutates_args=())
def magnitudes(row: Tensor, passes: Tensor, seed: int, count: int) -> Tensor:
    """`stretch_of`, where a compiler must not look into it."""
    return stretch_of(row, passes, seed, count).clone()


@magnitudes.register_fake
def _(row: Tensor, passes: Tensor, seed: int, count: int) -> Tensor:
    return row.new_empty(count)


def backward_weight(method: Method, weight: Tensor, feedback: Tensor | None) -> Tensor:
    """B up to its scale, ``[out, in, ...]``."""
    if feedback is None:
        return weight.sign()
    if method is Method.FA:
        return feedback.to(weight.dtype)
    if method is Method.BRSF or torch.compiler.is_compiling() or feedback.dtype is not weight.dtype:
        return torch.copysign(feedback.to(weight.dtype), weight)
    return feedback.data.copysign_(weight)  # only its signs change, so every graph that holds it may see the change


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        method: Method,
        scale: float,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        feedback: Tensor | None,
    ) -> Tensor:
        ctx.method, ctx.scale = method, scale
        ctx.save_for_backward(input, weight, feedback)
        return F.linear(input, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        (gradient,) = gradients
        input, weight, feedback = ctx.saved_tensors
        _, _, for_input, for_weight, for_bias, _ = ctx.needs_input_grad
        rows = gradient.reshape(-1, gradient.shape[-1])
        to_input = None
        if for_input:
            scaled = gradient if ctx.scale == 1.0 else gradient * ctx.scale
            to_input = scaled @ backward_weight(ctx.method, weight, feedback)
        to_weight = rows.T @ input.reshape(-1, input.shape[-1]) if for_weight else None
        return None, None, to_input, to_weight, rows.sum(0) if for_bias else None, None


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        method: Method,
        scale: float,
        shape: tuple[list[int], list[int], list[int], int],
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        feedback: Tensor | None,
    ) -> Tensor:
        ctx.method, ctx.scale, ctx.shape = method, scale, shape
        ctx.save_for_backward(input, weight, feedback)
        stride, padding, dilation, groups = shape
        return torch.convolution(input, weight, bias, stride, padding, dilation, False, [0] * len(stride), groups)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        (gradient,) = gradients
        input, weight, feedback = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.shape
        wanted = [bool(flag) for flag in ctx.needs_input_grad[3:6]]
        back = backward_weight(ctx.method, weight, feedback) if wanted[0] else weight
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
        return None, None, None, to_input, to_weight, to_bias, None
