"""Running a forward pass once more, as it was: arguments, generators, autocast, and buffers that it changes.

What a pass changes counts once: during the second run the model holds copies of its buffers as they were when the first
began, and afterwards those that it held before, just as the generators go on from where they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from tinydfa.errors import ReplayError

Autocast = list[dict[str, Any]]


class Again:
    """A forward pass that can be run once more.

    Args:
        model: The model.
        forward: What is run; a pass of it begins now.
        args: Its arguments.
        kwargs: Its named arguments.
        changing: Names of the model's buffers that a pass changes; None: unknown, so all of them are copied.
    """

    def __init__(
        self,
        model: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        changing: Sequence[str] | None,
    ) -> None:
        self.model, self.forward = model, forward
        self.flat, self._spec = tree_flatten((args, kwargs))
        self._versions = [version(item) for item in self.flat]
        self._devices = devices_of([*self.flat, next(model.parameters(), None)])
        self._generators = generator_states(self._devices)
        self.autocast = autocast_of({"cpu", *[device.type for device in self._devices]})
        self.buffers = {
            name: buffer.detach().clone()
            for name, buffer in model.named_buffers()
            if changing is None or name in changing
        }

    @property
    def inputs(self) -> list[Tensor]:
        """The tensors among the arguments that ask for a gradient."""
        return [item for item in self.flat if isinstance(item, Tensor) and item.requires_grad]

    def changed(self) -> list[str]:
        """The buffers that are other than when the pass began."""
        now = dict(self.model.named_buffers())
        return [name for name, before in self.buffers.items() if not same(before, now.get(name))]

    def keep(self, names: Sequence[str]) -> None:
        """Of the copied buffers keep these alone."""
        self.buffers = {name: self.buffers[name] for name in names}

    def refuse_changed_arguments(self, by: str) -> None:
        """Refuse arguments that were written to since the pass began."""
        for item, before in zip(self.flat, self._versions, strict=True):
            if version(item) != before:
                raise ReplayError(
                    f"{by} wrote to a tensor of shape {tuple(item.shape)} that the model was called with, and under "
                    "memory= the model runs forward again on what it was called with. Pass it a copy (x.clone()), or "
                    "write to a copy."
                )

    def run(self, replaced: dict[int, Tensor]) -> None:
        """Run the pass; arguments are replaced by id."""
        args, kwargs = tree_unflatten([replaced.get(id(item), item) for item in self.flat], self._spec)
        others = [(name, b, version(b)) for name, b in self.model.named_buffers() if name not in self.buffers]
        try:
            with self._as_it_was(), torch.enable_grad():
                self.forward(*args, **kwargs)
        finally:
            refuse_changed_buffers([name for name, buffer, before in others if version(buffer) != before])

    @contextmanager
    def _as_it_was(self) -> Iterator[None]:
        before = generator_states(self._devices)
        set_generators(self._generators, self._devices)
        try:
            with buffers_replaced(self.model, self.buffers), entered(self.autocast):
                yield
        finally:
            set_generators(before, self._devices)


def refuse_changed_buffers(names: Sequence[str]) -> None:
    """Refuse buffers that the second run wrote to, and that the pass from which this was learned did not change."""
    if names:
        raise ReplayError(
            f"the buffer {names[0]!r} is changed by some forward passes and not by others, so that under memory= it "
            "would be changed twice in some. Change it in every training pass, or attach without memory=."
        )


@contextmanager
def buffers_replaced(model: nn.Module, buffers: dict[str, Tensor]) -> Iterator[None]:
    """Inside this block the model holds copies of other buffers, by name."""
    held: list[tuple[dict[str, Tensor | None], str, Tensor | None]] = []
    for name, buffer in buffers.items():
        path, _, leaf = name.rpartition(".")
        owner = model.get_submodule(path)._buffers
        held.append((owner, leaf, owner[leaf]))
        owner[leaf] = buffer.clone()
    try:
        yield
    finally:
        for owner, leaf, before in held:
            owner[leaf] = before


def version(item: Any) -> int | None:
    """How often a tensor was written to, as autograd counts."""
    return item._version if isinstance(item, Tensor) and not item.is_inference() else None


def same(one: Tensor, other: Tensor | None) -> bool:
    if other is None or one.shape != other.shape or one.dtype != other.dtype:
        return False
    if torch.equal(one, other):
        return True
    return torch.equal(one.isnan(), other.isnan()) and torch.equal(one.nan_to_num(), other.nan_to_num())


def devices_of(items: Sequence[Any]) -> list[torch.device]:
    """The devices with generators of their own (all but the CPU) that some tensors are on."""
    found = {item.device for item in items if isinstance(item, Tensor)}
    return sorted([device for device in found if device.type not in ("cpu", "meta")], key=str)


def generator_states(devices: Sequence[torch.device]) -> list[Tensor]:
    return [torch.get_rng_state(), *[torch.get_device_module(d.type).get_rng_state(d) for d in devices]]


def set_generators(states: Sequence[Tensor], devices: Sequence[torch.device]) -> None:
    torch.set_rng_state(states[0])
    for state, device in zip(states[1:], devices, strict=True):
        torch.get_device_module(device.type).set_rng_state(state, device)


def autocast_of(kinds: set[str]) -> Autocast:
    """The autocast in force, one set of arguments for every kind of device."""
    return [
        {
            "device_type": kind,
            "dtype": torch.get_autocast_dtype(kind),
            "enabled": torch.is_autocast_enabled(kind),
            "cache_enabled": torch.is_autocast_cache_enabled(),
        }
        for kind in sorted(kinds)
    ]


@contextmanager
def entered(autocast: Autocast) -> Iterator[None]:
    """Inside this block an autocast is in force."""
    now = autocast_of({one["device_type"] for one in autocast})
    with ExitStack() as stack:
        if now != autocast:
            for one in autocast:
                stack.enter_context(torch.autocast(**one))
        yield
