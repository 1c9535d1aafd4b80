"""Which modules a layer-wise rule's signal still passes by their own weights, as in backpropagation.

Of torch's recurrent layers, of attention with packed projections, and of a layer with a `forward` that nobody
described, this is certain. Any other module may own a table of numbers that is added, scaled or looked up (position
embeddings, class tokens, the bias of relative positions), or one that it multiplies by. So it is watched in one forward
pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.nn.utils.parametrize import ParametrizationList
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from tinydfa.layerwise.feedback_layers import LayerFeedback
from tinydfa.layerwise.known_layers import descends
from tinydfa.passes.forward_pass import in_backward

RECURRENT = (nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase)
TABLES = (nn.Embedding, nn.EmbeddingBag)
PRODUCTS = {
    "linear", "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "mv", "addmm", "addmv", "baddbmm", "addbmm", "einsum",
    "tensordot", "inner", "bilinear", "multi_dot", "chain_matmul", "conv1d", "conv2d", "conv3d", "convolution",
    "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "scaled_grouped_mm", "grouped_mm", "_grouped_mm",
    "lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell",
}  # fmt: skip


def certain(model: nn.Module) -> list[str]:
    """Names of the modules that surely multiply by weights of their own."""
    return [name or type(model).__name__ for name, module in model.named_modules() if multiplies(module)]


def multiplies(module: nn.Module) -> bool:
    if is_swapped(module) or isinstance(module, NonDynamicallyQuantizableLinear):
        return False
    if isinstance(module, RECURRENT) or descends(module):
        return True
    sized = isinstance(getattr(module, "in_features", None), int) and hasattr(module, "out_features")  # quantised, say
    return sized and not any(is_swapped(child) for child in module.modules())


def is_swapped(module: nn.Module) -> bool:
    return isinstance(module._modules.get("layer_feedback"), LayerFeedback)


def doubtful(model: nn.Module) -> dict[str, nn.Module]:
    """The modules that own a table and may multiply by it, by name."""
    made = [part for m in model.modules() if isinstance(m, ParametrizationList) for part in m.modules()]
    settled = {id(module) for module in made} | {id(m) for m in model.modules() if isinstance(m, TABLES)}
    return {
        name or type(model).__name__: module
        for name, module in model.named_modules()
        if id(module) not in settled
        and any(p.dim() > 1 for p in module.parameters(recurse=False))
        and not is_swapped(module)
        and not multiplies(module)
        and not isinstance(module, NonDynamicallyQuantizableLinear)
    }


class Watch(TorchFunctionMode):
    """Looks for a product of a module's own numbers with something that carries a gradient.

    What is computed from those numbers alone counts as its own too: slices, casts, normed or masked weights.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        self.own = {id(tensor): tensor for tensor in tensors}  # kept, so that no other tensor takes an id over
        self.found = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        others = [tensor for tensor in tensors if id(tensor) not in self.own]
        if len(others) == len(tensors):
            return result
        if not others:
            self.own |= {id(leaf): leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)}
        elif getattr(func, "__name__", "") in PRODUCTS and any(tensor.requires_grad for tensor in others):
            self.found = True
        return result


class Watcher:
    """Watches one module in its first forward pass that trains, then tells and leaves."""

    def __init__(self, name: str, module: nn.Module, tell: Callable[[str, bool], None]) -> None:
        self.name, self.tell = name, tell
        self.watch: Watch | None = None
        self.handles = [
            module.register_forward_pre_hook(self.before),
            module.register_forward_hook(self.after, always_call=True),
        ]

    def before(self, module: nn.Module, inputs: Any) -> None:
        if torch.compiler.is_compiling() or not torch.is_grad_enabled() or in_backward() or self.watch is not None:
            return
        self.watch = Watch(module)
        self.watch.__enter__()

    def after(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if torch.compiler.is_compiling() or self.watch is None:
            return
        watch, self.watch = self.watch, None
        watch.__exit__(None, None, None)
        self.remove()
        self.tell(self.name, watch.found)

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()


@contextmanager
def found_in_a_pass(model: nn.Module) -> Iterator[list[str]]:
    """The names of modules, certain ones first, that a pass inside this block passes by their own weights."""
    names = certain(model)

    def tell(name: str, multiplies: bool) -> None:
        names.extend([name] * multiplies)

    watchers = [Watcher(name, module, tell) for name, module in doubtful(model).items()]
    try:
        yield names
    finally:
        for watcher in watchers:
            watcher.remove()
