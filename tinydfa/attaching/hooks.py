"""How `attach` reaches into a model: hooks that are objects, so that a copied or pickled model carries its own."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tinydfa.attaching import entries
from tinydfa.attaching.entries import Keys
from tinydfa.errors import PointError
from tinydfa.head import Head
from tinydfa.passes import packed
from tinydfa.passes.forward_pass import Rows, in_backward, transformed
from tinydfa.points import DFALayer, noted
from tinydfa.surroundings.around import refuse_without_graph
from tinydfa.surroundings.backward_hooks import has_backward_hooks, hooked
from tinydfa.surroundings.tracing import is_tracing


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
        self.judged = False  # an output without a graph was found to be in order
        self.link = point.link  # None until a head knows the point

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        if isinstance(output, Tensor) and not self.keys:
            if self.link is None:
                self.link = self.point.link
            if not output.requires_grad or has_backward_hooks(module):
                output = self._looked_at(module, inputs, output, output, ())
            passed = None if self.link is None else noted(self.point, self.link, output)
            return self.point.forward(output) if passed is None else passed
        if is_tracing():
            return output
        keys = self._keys(output)
        tensor = entries.get(output, keys, f"the output of {self.point.label!r}")
        tensor = self._looked_at(module, inputs, output, tensor, keys)
        if self.point.cuts and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            output = self._watch(output, keys)
        return entries.put(output, keys, self.point.pass_on(tensor, self._rows(output, keys)))

    def _rows(self, output: Any, keys: Keys) -> Rows | None:
        """Which samples the rows of an entry belong to, where somebody told or the output knows."""
        link = self.point.link
        told = None if link is None or link.current.rows is None else link.current.rows_of(self.point)
        return told if torch.compiler.is_compiling() else packed.rows_of(output, keys, told)

    def _looked_at(self, module: nn.Module, inputs: Any, output: Any, tensor: Tensor, keys: Keys) -> Tensor:
        """`tensor` with the module's backward hooks; refused if no gradient could reach the module's weights."""
        if not self.point.cuts or not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return tensor
        if transformed() or is_tracing():
            return tensor
        if not tensor.requires_grad and not self.judged:
            self.judged = not any(tensor is given for given in inputs)  # a block that was skipped says nothing
            if self.judged and not has_points(module):
                refuse_without_graph(module, self.point.label)
        return hooked(module, inputs, output, tensor, keys) if has_backward_hooks(module) else tensor

    def _keys(self, output: Any) -> Keys:
        if self.keys is not None:
            return self.keys
        first = next(entries.tensors_in(output), None)
        if first is None:
            raise PointError(
                f"feedback point {self.point.label!r} returned a {type(output).__name__} without a floating-point "
                f"tensor that is found by itself, so there is nothing to cut or to feed. {named(output, self._module)}"
            )
        return first[0]

    @property
    def _module(self) -> str:
        return self.point.label.partition("[")[0]

    def _watch(self, output: Any, keys: Keys) -> Any:
        """`output`, whose other entries say so when backpropagation comes in by them."""
        return watched(output, [keys, *self.others], self._leak)

    def _leak(self, place: Keys) -> Callable[[Tensor], None]:
        def warn(gradient: Tensor) -> None:
            if self.warned or not self.point.cuts:
                return
            self.warned = True
            warnings.warn(
                f"backpropagation goes around feedback point {self.point.label!r}, through entry "
                f"{entries.spelled(place)} of what its module returns. Name that entry as a point too: "
                f"{self._module + entries.spelled(place)!r}.",
                stacklevel=2,
            )

        return warn


def has_points(module: nn.Module) -> bool:
    """Whether points lie inside `module`: then these feed its weights."""
    inside = [inner for inner in module.modules() if inner is not module]
    hooks = [hook for inner in inside for hook in inner._forward_hooks.values()]
    return any(isinstance(found, PointHook | DFALayer) for found in [*hooks, *inside])


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
                self._refuse_hidden(output)
                return output
            keys = [first[0]]
        tensors = self._take([entries.get(output, place, self.where) for place in keys])
        if self.head.link.cuts and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            output = self._watch(output, keys)
        for place, tensor in zip(keys, tensors, strict=True):
            output = entries.put(output, place, tensor)
        return output

    def _refuse_hidden(self, output: Any) -> None:
        """Refuse an output in which no tensor is found, if it should feed points."""
        link = self.head.link
        if link.cuts and link.current.records and torch.is_grad_enabled():
            raise PointError(
                f"{self.where} is a {type(output).__name__} in which no floating-point tensor is found by itself, so "
                f"the error is taken nowhere. {named(output, '')}"
            )

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


def named(output: Any, module: str) -> str:
    """How to name a tensor among the attributes of an object."""
    values = getattr(output, "__dict__", {})
    names = [name for name, value in values.items() if isinstance(value, Tensor) and value.is_floating_point()]
    if not names:
        return "Choose another submodule."
    return f"Name one of its attributes: {', '.join([repr(f'{module}[{name}]') for name in names])}."


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
