"""What the stages tell each other: once what they are made of, and for every microbatch the error, to all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.pipelining.stage import _PipelineStageBase

from tinydfa.errors import DFAError

TRANSPORT = ("gloo", "Gloo", "NCCL", "Connection", "Timed out", "timeout", "Socket")  # in messages of lost processes


class StageLostError(DFAError):
    """Another stage has ended, or has not answered within the timeout."""


class Exchange:
    """The group of the stages of one pipeline.

    It is a group of its own, so that an error on its way does not wait for an activation.

    Args:
        stage: This process's stage.
        timeout: How long anything may take.
    """

    def __init__(self, stage: _PipelineStageBase, timeout: timedelta) -> None:
        self.stage, self.timeout = stage, timeout
        self.ranks = dist.get_process_group_ranks(stage.group or dist.group.WORLD)
        local = stage.group is not None
        self.group = dist.new_group(self.ranks, timeout=timeout, use_local_synchronization=local)
        self.root = self.ranks[stage.stage_index_to_group_rank[stage.num_stages - 1]]

    @property
    def is_first(self) -> bool:
        """Whether this process is the first of the group, which writes what is written once."""
        return dist.get_rank(self.group) == 0

    def meet(self, mine: Any) -> list[Any]:
        """What each stage has passed here, by stage."""
        found: list[Any] = [None] * self.stage.num_stages
        with self.answering("the other stages"):
            dist.all_gather_object(found, mine, group=self.group)
        return found

    def send(self, encoded: Tensor) -> Callable[[], Tensor]:
        """Send an encoded error to all stages; returns what waits until it has gone."""
        return self._carried(encoded.contiguous())

    def receive(self, shape: tuple[int, ...], dtype: torch.dtype) -> Callable[[], Tensor]:
        """Ask for the next encoded error; returns what waits for it."""
        return self._carried(torch.empty(shape, dtype=dtype, device=self.stage.device))

    def _carried(self, tensor: Tensor) -> Callable[[], Tensor]:
        with self.answering("the last stage"):
            work = dist.broadcast(tensor, self.root, group=self.group, async_op=True)

        def wait() -> Tensor:
            with self.answering("the last stage"):
                work.wait()
            return tensor

        return wait

    def flush(self) -> None:
        """Wait until every stage has come here."""
        with self.answering("the other stages"):
            dist.barrier(group=self.group)

    def wait(self, work: list[Any], whose: str) -> None:
        """Wait for activations to come or to go."""
        with self.answering(whose):
            for item in work:
                if self.stage.device.type == "cpu":
                    item.wait(self.timeout)
                else:  # the GPU's stream waits, and the group's own timeout holds
                    item.wait()

    @contextmanager
    def answering(self, whose: str, beside_work: bool = False) -> Iterator[None]:
        """Turn what the transport raises into one message.

        Args:
            whose: Who is waited for.
            beside_work: Other things happen in the block, whose own errors are left as they are.
        """
        try:
            yield
        except RuntimeError as error:  # torch has no narrower class for gloo's
            if beside_work and not any(word in str(error) for word in TRANSPORT):
                raise
            reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            raise StageLostError(
                f"stage {self.stage.stage_index} has lost {whose}: a process has ended, or has not answered for "
                f"{self.timeout.total_seconds():g} seconds. All stages end; start them again from the last checkpoint. "
                f"({reason})"
            ) from None
