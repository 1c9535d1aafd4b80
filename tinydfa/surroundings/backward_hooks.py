"""Backward hooks of a module that is a feedback point: they see the signal that the point receives.

`torch.nn.Module` sets them at what the module returns, which a point detaches, so that they would never be called.
Here they are set at what the module returned before. They are called as torch calls them: the hooks of
`register_full_backward_pre_hook` with the gradient of the outputs, those of `register_full_backward_hook` with the
gradients of inputs and outputs once the inputs have theirs; what they return takes the gradient's place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as modules

Gradients = tuple[Tensor | None, ...]
INPUT = "BackwardHookFunctionBackward"  # the node that torch puts before a module whose hooks want its inputs' gradient


def has_backward_hooks(module: nn.Module) -> bool:
    return bool(
        module._backward_hooks
        or module._backward_pre_hooks
        or modules._global_backward_hooks
        or modules._global_backward_pre_hooks
    )


def hooked(module: nn.Module, inputs: Sequence[Any], output: Any, value: Tensor, keys: tuple[Any, ...]) -> Tensor:
    """`value`, at whose gradient the module's backward hooks are called.

    Args:
        module: The module.
        inputs: What its `forward` was given.
        output: What it returned.
        value: The tensor of it that is the point, with its graph.
        keys: Where that stands in `output`.
    """
    if not value.requires_grad:
        return value
    full, old = module._get_backward_hooks()
    value = value.view_as(value)  # the gradient of what comes out of the module, whatever uses the value inside
    for hook in old:
        value.grad_fn.register_hook(partial(hook, module))  # type: ignore[union-attr]
    before = module._get_backward_pre_hooks()
    if full or before:
        call = Called(module, full, before, inputs, place_in(output, keys))
        value.register_hook(call.at_output)
    return value


def place_in(output: Any, keys: tuple[Any, ...]) -> tuple[int, int]:
    """How many outputs the hooks are told of, and which of them is the point."""
    if not keys or not isinstance(output, tuple):
        return 1, 0
    return len(output), keys[0] if isinstance(keys[0], int) else 0


class Called:
    """The hooks of one call of a module."""

    def __init__(
        self,
        module: nn.Module,
        hooks: Sequence[Callable[..., Any]],
        before: Sequence[Callable[..., Any]],
        inputs: Sequence[Any],
        place: tuple[int, int],
    ) -> None:
        self.module, self.hooks, self.before, self.place = module, hooks, before, place
        self.wanted = [number for number, value in enumerate(inputs) if isinstance(value, Tensor)]
        self.inputs = len(inputs)
        self.outputs: Gradients | None = None  # their gradients, from when they are known until the hooks were called
        node: Any = next((inputs[n].grad_fn for n in self.wanted if inputs[n].requires_grad), None)
        self.waits = node is not None and node.name() == INPUT
        if self.waits:
            node.register_hook(self.at_inputs)

    def at_output(self, gradient: Tensor) -> Tensor | None:
        count, place = self.place
        gradients: Gradients = tuple([gradient if number == place else None for number in range(count)])
        for hook in self.before:
            gradients = replaced(gradients, hook(self.module, gradients))
        if self.waits:
            self.outputs = gradients
        else:
            for hook in self.hooks:
                hook(self.module, (None,) * self.inputs, gradients)
        return gradients[place]

    def at_inputs(self, gradients: Gradients, _: Any) -> Gradients | None:
        if self.outputs is None:
            return None
        found: list[Tensor | None] = [None] * self.inputs
        for number, gradient in zip(self.wanted, gradients, strict=True):
            found[number] = gradient
        given: Gradients = tuple(found)
        for hook in self.hooks:
            given = replaced(given, hook(self.module, given, self.outputs))
        self.outputs = None
        return tuple([given[number] for number in self.wanted])


def replaced(gradients: Gradients, by: Any) -> Gradients:
    """What a hook returned in the place of `gradients`, which stay where it returned None."""
    if by is None:
        return gradients
    return by if isinstance(by, tuple) else (by,)
