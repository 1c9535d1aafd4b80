"""How `attach` reaches into a model: callable objects, so that a copied or pickled model carries its own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tinydfa.errors import PointError
from tinydfa.methods import Method
from tinydfa.points import DFALayer, Tape, in_backward

if TYPE_CHECKING:
    from tinydfa.attachment import Attachment
    from tinydfa.dfa import DFA


class PointHook:
    """Turns a submodule's output into a feedback point."""

    def __init__(self, point: DFALayer) -> None:
        self.point = point

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        if isinstance(output, Tensor):
            return self.point.forward(output)
        return with_first_tensor(output, self.point)


class HeadHook:
    """Takes the error at a submodule's output, or at the model's return value."""

    def __init__(self, head: DFA, where: str) -> None:
        self.head = head
        self.where = where

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        return self._take(output) if isinstance(output, Tensor) else with_first_tensor(output, self._take)

    def _take(self, output: Tensor) -> Tensor:
        if output.dim() == 0:
            self.head.tape.take()
            raise PointError(
                f"{self.where} is a single number, a loss it seems, and the error is taken at the output before it. "
                "Name the submodule that computes the output: attach(..., output='lm_head'), say."
            )
        return self.head.forward(output)


class AttachedForward:
    """The `forward` of an attached model: it knows where a pass begins and ends, also one that raises.

    It stands on the instance rather than in the module's hooks because `torch.compile` runs the hooks of its outermost
    module outside the graph, and points and head belong in one graph.

    Every instance is of a class of its own, with a copy of the code: the compiler counts its recompilations per code
    object, and models that share one would share its limit.
    """

    attachment: Attachment
    head: HeadHook | None
    before: Any
    by_method: dict[Method, AttachedForward]

    def __new__(cls) -> AttachedForward:
        call = FunctionType(forward_pass.__code__.replace(), forward_pass.__globals__, "__call__")
        return object.__new__(type("AttachedForward", (AttachedForward,), {"__call__": call}))

    def __reduce__(self) -> tuple[Any, ...]:
        return AttachedForward, (), vars(self)

    def take_over(self, attachment: Attachment, head: DFA | None) -> AttachedForward:
        """Stand in for the model's forward; with a head, the error is taken at its return value."""
        self.attachment = attachment
        self.head = HeadHook(head, "the model's return value") if head is not None else None
        self.before = vars(attachment.model).get("forward")  # an instance may have one already
        self.by_method = {attachment.method: self}
        vars(attachment.model)["forward"] = self
        return self

    def of(self, method: Method) -> AttachedForward:
        """The same for another method: with code of its own, so that what was compiled for each stays compiled."""
        place = vars(self.attachment.model)
        other = self.by_method.get(method)
        if other is None:
            other = self.by_method[method] = AttachedForward()
            vars(other).update(vars(self))
        if place.get("forward") is not self:  # somebody wrapped it since
            return self
        place["forward"] = other
        return other

    def remove(self) -> None:
        """Give the model its own `forward` back."""
        place = vars(self.attachment.model)
        if place.get("forward") is self:
            del place["forward"]
            if self.before is not None:
                place["forward"] = self.before


def forward_pass(self: AttachedForward, *args: Any, **kwargs: Any) -> Any:
    """One forward pass of an attached model."""
    model, tape = self.attachment.model, self.attachment.tape
    tape.records = []  # of a pass that was broken off
    tape.open = True
    try:
        output = type(model).forward(model, *args, **kwargs) if self.before is None else self.before(*args, **kwargs)
        if self.head is not None:
            output = self.head(model, args, output)
        refuse_unfed(tape)
    finally:
        tape.open = False
        tape.records = []
        if not in_backward():  # the target may yet be set for a pass that is being recomputed
            tape.target = None
    return output


def refuse_unfed(tape: Tape) -> None:
    """Points that are still on the tape at the end of a pass have no head."""
    left = [record.point.label for record in tape.records if record.value is not None]
    if left:
        raise PointError(
            f"no head feeds {', '.join(map(repr, left))}: in this forward pass the output that takes the error did not "
            "come after them, so everything below them would keep its weights. Name a later output, or remove these "
            "points."
        )


def with_first_tensor(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """`output` with its first floating-point tensor changed: a tensor, or the first in a tuple, list or mapping."""
    if isinstance(output, Tensor):
        return change(output)
    if isinstance(output, tuple | list):
        place = next((i for i, value in enumerate(output) if is_signal(value)), None)
        if place is None:
            return output
        values = [change(value) if i == place else value for i, value in enumerate(output)]
        return type(output)(*values) if hasattr(output, "_fields") else type(output)(values)
    if isinstance(output, Mapping):
        key = next((key for key, value in output.items() if is_signal(value)), None)
        if key is None:
            return output
        changed: Any = copy.copy(output)
        changed[key] = change(output[key])
        return changed
    return output


def is_signal(value: Any) -> bool:
    return isinstance(value, Tensor) and torch.is_floating_point(value)


def attachment_of(model: nn.Module) -> Attachment | None:
    """The attachment at work on `model` (also on a copy of an attached model), or None."""
    attachment: Attachment | None = vars(getattr(model, "_orig_mod", model)).get("_attachment")
    return attachment
