"""The hooks with which `attach` reaches into a model: objects, so that `copy.deepcopy` of a model copies them along."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tinydfa.errors import PointError
from tinydfa.points import DFALayer, Tape

if TYPE_CHECKING:
    from tinydfa.attachment import Attachment
    from tinydfa.dfa import DFA


class PointHook:
    """Turns a submodule's output into a feedback point."""

    def __init__(self, point: DFALayer) -> None:
        self.point = point

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        return with_first_tensor(output, self.point)


class HeadHook:
    """Takes the error at a submodule's output, or at the model's return value."""

    def __init__(self, head: DFA, where: str) -> None:
        self.head = head
        self.where = where

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        return with_first_tensor(output, self._take)

    def _take(self, output: Tensor) -> Tensor:
        if output.dim() == 0:
            self.head.tape.take()
            raise PointError(
                f"{self.where} is a single number, a loss it seems, and the error is taken at the output before it. "
                "Name the submodule that computes the output: attach(..., output='lm_head'), say."
            )
        return self.head(output)


class Begin:
    """Opens a forward pass of the model: what an earlier, broken one may have left does not count."""

    def __init__(self, attachment: Attachment) -> None:
        self.attachment = attachment

    def __call__(self, module: nn.Module, inputs: Any) -> None:
        tape = self.attachment.tape
        tape.records = []
        tape.open = True


class End:
    """Closes a forward pass, also one that raised; then `output` is None."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self.tape.open = False
        left = [record.point.label for record in self.tape.take() if record.value is not None]
        if left and output is not None:
            raise PointError(
                f"no head feeds {', '.join(map(repr, left))}: in this forward pass the output that takes the error "
                "did not come after them, so everything below them would keep its weights. Name a later output, or "
                "remove these points."
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
    model = getattr(model, "_orig_mod", model)
    hooks = model._forward_pre_hooks.values()
    return next((hook.attachment for hook in hooks if isinstance(hook, Begin)), None)
