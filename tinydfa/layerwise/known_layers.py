"""Which layers a layer-wise rule can give a B, and how each uses its weight.

A layer is known by its class: those of torch, subclasses that keep their `forward`, some of other libraries by their
names (none is imported here), and what `register_layer` adds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from tinydfa.errors import DFAError
from tinydfa.layerwise.feedback_layers import LayerFeedback, convolution, linear, linear_transposed, padded

Product = Callable[..., Tensor]


class Use(NamedTuple):
    """How a layer uses its weight.

    Attributes:
        product: ``product(layer, weight, *inputs)``, what its forward makes of a weight and its inputs before a bias is
            added: linear in each input.
        forward: The layer's whole forward with the signal through B, ``forward(layer, feedback, input)``; None: the
            layer's own runs, and the product is computed once more with B.
        weight: Name of the weight.
    """

    product: Product
    forward: Callable[[Any, LayerFeedback, Tensor], Tensor] | None = None
    weight: str = "weight"


def _linear(layer: Any, weight: Tensor, input: Tensor) -> Tensor:
    return F.linear(input, weight)


def _linear_transposed(layer: Any, weight: Tensor, input: Tensor) -> Tensor:
    return input @ weight


def _bilinear(layer: Any, weight: Tensor, one: Tensor, other: Tensor) -> Tensor:
    return F.bilinear(one, other, weight)


def _convolution(convolve: Product) -> Product:
    def product(layer: Any, weight: Tensor, input: Tensor) -> Tensor:
        input, padding = padded(layer, input)
        return convolve(input, weight, None, layer.stride, padding, layer.dilation, layer.groups)

    return product


def _transposed_convolution(convolve: Product) -> Product:
    def product(layer: Any, weight: Tensor, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        sizes = layer.stride, layer.padding, layer.kernel_size, len(layer.stride), layer.dilation
        extra = layer._output_padding(input, output_size, *sizes)
        return convolve(input, weight, None, layer.stride, layer.padding, extra, layer.groups, layer.dilation)

    return product


_USES: dict[type, Use] = {
    nn.Linear: Use(_linear, linear),
    nn.Conv1d: Use(_convolution(F.conv1d), convolution),
    nn.Conv2d: Use(_convolution(F.conv2d), convolution),
    nn.Conv3d: Use(_convolution(F.conv3d), convolution),
    nn.ConvTranspose1d: Use(_transposed_convolution(F.conv_transpose1d)),
    nn.ConvTranspose2d: Use(_transposed_convolution(F.conv_transpose2d)),
    nn.ConvTranspose3d: Use(_transposed_convolution(F.conv_transpose3d)),
    nn.Bilinear: Use(_bilinear),
}

_QAT = "torch.ao.nn.qat.modules"
_ELSEWHERE: dict[str, Use] = {
    "torch_geometric.nn.dense.linear.Linear": _USES[nn.Linear],
    "transformers.pytorch_utils.Conv1D": Use(_linear_transposed, linear_transposed),  # of GPT-2: W is [in, out]
    "torchao.quantization.qat.linear.FakeQuantizedLinear": Use(_linear),
    f"{_QAT}.linear.Linear": Use(_linear),
    **{f"{_QAT}.conv.{kind.__name__}": Use(_USES[kind].product) for kind in (nn.Conv1d, nn.Conv2d, nn.Conv3d)},
}


def register_layer(kind: type[nn.Module], like: type[nn.Module] | Product, weight: str = "weight") -> None:
    """Tell layer-wise rules (fa, usf, brsf, frsf) how layers of a class use their weight.

    The layer's own `forward` runs as it is and trains its weight as it does. What its inputs receive goes through B:
    it is the gradient of the product with B, shaped as the weight, in the place of the weight.

    Args:
        kind: The class. Subclasses that keep its `forward` are known too.
        like: A class of torch that makes the same product from attributes of the same names (`nn.Linear`, `nn.Conv2d`),
            or a function ``like(layer, weight, *inputs)`` that returns the product: the output without its bias,
            linear in each input, differentiable.
        weight: Name of the layer's weight.

    Raises:
        DFAError: `like` is a class that is not known itself.

    Example:
        >>> import torch
        >>> class Turned(nn.Module):  # y = x @ W + b with W [in, out]
        ...     def __init__(self, inputs, outputs):
        ...         super().__init__()
        ...         self.kernel = nn.Parameter(torch.randn(inputs, outputs))
        ...         self.bias = nn.Parameter(torch.zeros(outputs))
        ...
        ...     def forward(self, x):
        ...         return x @ self.kernel + self.bias
        >>> register_layer(Turned, lambda layer, kernel, x: x @ kernel, weight="kernel")
    """
    if not isinstance(like, type):
        _USES[kind] = Use(like, weight=weight)
        return
    base = next((_USES[known] for known in like.__mro__ if known in _USES), None)
    if base is None:
        known = ", ".join(each.__name__ for each in _USES)
        raise DFAError(
            f"{like.__name__} is no layer that a layer-wise rule knows ({known}). Give register_layer a function "
            "like(layer, weight, *inputs) that returns the product."
        )
    _USES[kind] = Use(base.product, weight=weight)


def use_of(module: nn.Module) -> Use | None:
    """How a module uses its weight, or None where that is not known.

    The projection inside `nn.MultiheadAttention` is not known: its `forward` is never called.
    """
    kind: type = getattr(type(module), "_dfa_stands_for", type(module))  # of an attached model: the class it had
    if issubclass(kind, NonDynamicallyQuantizableLinear):
        return None
    for base in kind.__mro__:
        use = _USES.get(base) or _ELSEWHERE.get(f"{base.__module__}.{base.__qualname__}")
        if use is not None:
            return use
        if "forward" in vars(base):
            return None
    return None


def descends(module: nn.Module) -> bool:
    """Whether a module is of a known class, also where it has a `forward` of its own."""
    return isinstance(module, tuple(_USES))
