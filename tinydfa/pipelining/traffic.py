"""A batch in parts, and its activations on their way: asked for ahead, sent on at once, waited for when needed."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from tinydfa.errors import DFAError
from tinydfa.pipelining.exchange import Exchange


class Batch(NamedTuple):
    """A whole batch in parts, as torch cuts it."""

    args: list[Any]
    kwargs: list[Any]
    targets: list[Any] | None
    return_outputs: bool
    loss_kwargs: dict[str, Any] | None

    def target(self, microbatch: int) -> Any:
        return None if self.targets is None else self.targets[microbatch]


class Traffic:
    """What one stage receives from below and sends upwards.

    Args:
        stage: torch's, which makes the operations and has the buffers.
        exchange: The group of the stages.
    """

    def __init__(self, stage: Any, exchange: Exchange) -> None:
        self.stage, self.exchange = stage, exchange
        self._receiving: dict[int, list[Any]] = {}
        self._sending: list[tuple[list[Any], Any]] = []  # and the tensors that must not go yet

    def ask(self, microbatch: int) -> None:
        """Ask the stage below for the activations of a microbatch."""
        operations = self.stage.get_fwd_recv_ops(microbatch)
        self._receiving[microbatch] = [start(operation) for operation in operations]

    def arrived(self, microbatch: int) -> None:
        """Wait for what was asked for."""
        self.exchange.wait(self._receiving.pop(microbatch), f"stage {self.stage.stage_index - 1}")

    def send_on(self, microbatch: int) -> None:
        """Send a stage's output to the next stage."""
        outputs, _ = self.stage.fwd_cache[microbatch]
        operations = self.stage.get_fwd_send_ops(microbatch)
        del self.stage.fwd_cache[microbatch]
        self._sending = [(work, kept) for work, kept in self._sending if not all(w.is_completed() for w in work)]
        if operations:
            self._sending.append(([start(operation) for operation in operations], outputs))

    def needs_gradient(self, microbatch: int) -> bool:
        """Whether a stage's output would need a gradient from the next stage."""
        outputs, _ = self.stage.fwd_cache[microbatch]
        return not self.stage.is_last and any(isinstance(t, Tensor) and t.requires_grad for t in outputs)

    def settle(self) -> None:
        """Wait until all that was sent has gone."""
        for work, _ in self._sending:
            self.exchange.wait(work, f"stage {self.stage.stage_index + 1}")
        self._sending.clear()

    def share_buffers(self, held: int, microbatches: int) -> None:
        """Receive into as many buffers as microbatches are held at once, and one more, in place of M."""
        infos = self.stage.args_recv_info
        for microbatch in range(held + 1, microbatches):
            for mine, shared in zip(infos[microbatch], infos[microbatch % (held + 1)], strict=True):
                mine.buffer = shared.buffer


def start(operation: Any) -> Any:
    """Begin to send or to receive."""
    peer = {"group_dst" if operation.op is torch.distributed.isend else "group_src": operation.group_peer}
    return operation.op(operation.tensor, group=operation.group, tag=operation.tag, **peer)


def forward_one_chunk(stage: Any, microbatch: int, args: Any, kwargs: Any, save: bool) -> Any:
    """torch's, which hides what the module raised; ours is shown."""
    try:
        return stage.forward_one_chunk(microbatch, args, kwargs, save_forward_output=save)
    except RuntimeError as error:
        if isinstance(error.__cause__, DFAError):
            raise error.__cause__ from None
        raise
