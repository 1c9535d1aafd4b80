"""How `attach` reaches into a model: hooks that are objects, so that a copied or pickled model carries its own."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tinydfa import entries
from tinydfa.entries import Keys
from tinydfa.errors import PointError
from tinydfa.head import Head
from tinydfa.passes import in_backward
from tinydfa.points import DFALayer, noted
from tinydfa.tracing import is_tracing


class PointHook:
    """Turns an entry of what a submodule returns into a feedback point.

    Args:
        point: The point.
        keys: The entry; None: the first floating-point tensor.
        others: Entries of the same submodule that are points of their own.
    """

    def __init__(self, point: DFALayer, keys: Keys | None = None, others: Sequence[Keys] = ()) -> None:
        self.point, self.keys, self.others = point, keys, list(others)
        self.warned = False
        self.link = point.link  # None until a head knows the point

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        if isinstance(output, Tensor) and not self.keys:
            if self.link is None:
                self.link = self.point.link
            passed = None if self.link is None else noted(self.point, self.link, output)
            return self.point.forward(output) if passed is None else passed
        if is_tracing():
            return output
        keys = self._keys(output)
        tensor = entries.get(output, keys, f"the output of {self.point.label!r}")
        if self.point.cuts and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            output = self._watch(output, keys)
        return entries.put(output, keys, self.point.forward(tensor))

    def _keys(self, output: Any) -> Keys:
        if self.keys is not None:
            return self.keys
        first = next(entries.tensors_in(output), None)
        if first is None:
            raise PointError(
                f"feedback point {self.point.label!r} returned a {type(output).__name__} without a floating-point "
                "tensor, so there is nothing to cut or to feed. Choose another submodule."
            )
        return first[0]

    def _watch(self, output: Any, keys: Keys) -> Any:
        """`output`, whose other entries say so when backpropagation comes in by them."""
        return watched(output, [keys, *self.others], self._leak)

    def _leak(self, place: Keys) -> Callable[[Tensor], None]:
        def warn(gradient: Tensor) -> None:
            if self.warned or not self.point.cuts:
                return
            self.warned = True
            module = self.point.label.partition("[")[0]
            warnings.warn(
                f"backpropagation goes around feedback point {self.point.label!r}, through entry "
                f"{entries.spelled(place)} of what its module returns. Name that entry as a point too: "
                f"{module + entries.spelled(place)!r}.",
                stacklevel=2,
            )

        return warn


class HeadHook:
    """Takes the error at entries of a submodule's output, or of the model's return value.

    Args:
        head: The head.
        where: What it stands at, for messages.
        keys: The entries; None: the first floating-point tensor.
    """

    def __init__(self, head: Head, where: str, keys: Sequence[Keys] | None = None) -> None:
        self.head, self.where, self.keys = head, where, keys

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        if isinstance(output, Tensor) and self.keys is None:
            joined = self.head.again(output)
            return self._take([output])[0] if joined is None else joined
        if is_tracing():
            return output
        keys = self.keys
        if keys is None:
            first = next(entries.tensors_in(output), None)
            if first is None:
                return output
            keys = [first[0]]
        tensors = self._take([entries.get(output, place, self.where) for place in keys])
        if self.head.link.cuts and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            output = self._watch(output, keys)
        for place, tensor in zip(keys, tensors, strict=True):
            output = entries.put(output, place, tensor)
        return output

    def _take(self, outputs: list[Tensor]) -> list[Tensor]:
        if self.head.link.cuts and min([output.dim() for output in outputs]) == 0:
            self.head.link.current.take()
            raise PointError(
                f"{self.where} is a single number, a loss it seems, and the error is taken at the output before it. "
                "Name the submodule that computes the output: attach(..., output='lm_head'), say."
            )
        return self.head.take(outputs)

    def _watch(self, output: Any, keys: Sequence[Keys]) -> Any:
        """`output`, whose entries refuse a loss where the error is not taken: no hidden layer would hear of it."""
        if in_backward():
            return output
        return watched(output, keys, lambda place: Unheard(self.head, self.where, list(keys), place))


def watched(output: Any, apart: Sequence[Keys], hook: Callable[[Keys], Callable[[Tensor], None]]) -> Any:
    """`output` with a hook on every tensor that has a graph, those at `apart` excepted.

    The hook is on a view, which is reached through the returned entry alone: the tensor itself may have been used
    inside the module as well.
    """
    for place, tensor in list(entries.tensors_in(output)):
        if place and place not in apart and tensor.requires_grad:
            view = tensor.view_as(tensor)
            view.register_hook(hook(place))
            output = entries.put(output, place, view)
    return output


class Unheard:
    """Raises when a gradient arrives at an entry of the output that no hidden layer hears of."""

    def __init__(self, head: Head, where: str, keys: Sequence[Keys], place: Keys) -> None:
        self.head, self.where, self.keys, self.place = head, where, keys, place

    def __call__(self, gradient: Tensor) -> None:
        if not self.head.link.cuts:
            return
        taken = ", ".join([repr(entries.spelled(keys)) for keys in self.keys])
        place = entries.spelled(self.place)
        raise PointError(
            f"the loss depends on entry {place} of {self.where}, and the error is taken at {taken}: no hidden layer "
            f"would hear of that loss. Take the error there too: attach(..., output=[{taken}, {place!r}]), or at "
            f"{place!r} alone; or detach that entry."
        )
