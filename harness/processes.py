"""Several processes that train one model: rank and number of processes, and their communication.

    accelerate launch --num_processes 2 -m recsys.train --model dcn
    torchrun --nproc-per-node 2 -m recsys.train --model dcn

A script that supports this calls `join` first and `leave` last. Any other refuses to open a run (`check_joined`). If
the script was started alone, `current` is one process, and nothing is imported or sent.
"""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from harness.device import pick_device
from harness.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from tinydfa import Attachment

T = TypeVar("T")
RANK_SEEDS = 1_000_003  # between the seeds of two processes


@dataclass(frozen=True)
class Processes:
    """This process's number, `rank`, among `size` of them."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.rank == 0

    def share(self, rows: T) -> T:
        """This process's part of a sequence or tensor: every `size`-th entry, from entry `rank` on."""
        return rows[self.rank :: self.size] if self.size > 1 else rows  # type: ignore[index]

    def gather(self, value: Any) -> list[Any]:
        """What each process passed here, by rank; anything that can be pickled."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def merge(self, part: "torch.Tensor") -> "torch.Tensor":
        """The inverse of `share`: the whole tensor, on the CPU, in every process."""
        import torch

        if self.size == 1:
            return part.cpu()
        parts = self.gather(part.cpu())
        whole = torch.empty((sum(len(part) for part in parts), *part.shape[1:]), dtype=part.dtype)
        for rank, found in enumerate(parts):
            whole[rank :: self.size] = found
        return whole

    def once(self, make: Callable[[], T]) -> T:
        """Call `make` in the first process and broadcast what it returns, so that a file is read once.

        The result is pickled. Memory-mapped files are better opened by every process.

        Raises:
            UserError: `make` raised it in the first process. It is raised in all processes.
        """
        if self.size == 1:
            return make()
        import torch.distributed as dist

        made: list[Any] = [None, None]
        if self.is_main:
            try:
                made[0] = make()
            except UserError as error:
                made[1] = error
        dist.broadcast_object_list(made)
        if made[1] is not None:
            raise made[1]
        result: T = made[0]
        return result

    def average(self, tensors: Sequence["torch.Tensor"]) -> None:
        """Replace each tensor by its mean over processes, in place, with one all-reduce."""
        if self.size == 1 or not tensors:
            return
        import torch
        import torch.distributed as dist

        together = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(together)
        parts = (together / self.size).split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def total(self, number: float) -> float:
        """The sum of a number over processes; the same in every process."""
        return float(sum(self.gather(number)))


ALONE = Processes()


def current() -> Processes:
    """The rank of this process and the number of processes."""
    if "torch.distributed" not in sys.modules:
        return ALONE
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_initialized():
        return ALONE
    return Processes(dist.get_rank(), dist.get_world_size())


def train_together(
    model: "nn.Module", attachment: "Attachment", device: "torch.device", *, some_untouched: bool | None = None
) -> "nn.Module":
    """`model` as this process trains it. With several processes it is wrapped, and gradients are averaged.

    A step then equals that of one process with the whole batch, if each process computes its loss as the sum over its
    own rows, times `Processes.size`, divided by the number of rows of the whole batch.

    Each process has its own dropout (`draw_apart`).

    Args:
        model: The model, on `device`. Its buffers are equal in all processes, or the model synchronises them itself.
        attachment: What is attached to it.
        device: Where it trains.
        some_untouched: Some parameters get no gradient, so that DDP has to search for them in every step; None: as
            the rule says.
    """
    group = current()
    if group.size == 1:
        return model
    from torch.nn.parallel import DistributedDataParallel

    tell_scale(attachment)
    draw_apart()
    untouched = not attachment.rule.reaches_all if some_untouched is None else some_untouched
    devices = [device] if device.type == "cuda" else None
    return DistributedDataParallel(
        model, device_ids=devices, forward_sync_buffers=False, find_unused_parameters=untouched
    )


def draw_apart() -> None:
    """Seed the generators of every process but the first anew, so that dropout differs between processes."""
    if (rank := current().rank) > 0:
        import torch

        from harness.seeds import seed_everything

        seed_everything(torch.initial_seed() + RANK_SEEDS * rank)


def tell_scale(attachment: "Attachment") -> None:
    """Set the attachment's loss scale for rules that do not carry a factor on the loss, such as sdfa.

    The factor is `Processes.size`; for a rule of local losses, which are means over all processes, there is none. Other
    rules carry it to the hidden layers themselves.
    """
    size = current().size
    if size > 1 and not attachment.rule.carries_loss_scale:
        attachment.loss_scale = 1 if attachment.rule.local else size


def started() -> int:
    """How many processes torchrun or accelerate started; 1 if neither did."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def refuse(task: str, why: str) -> None:
    """Raise `UserError` if several processes were requested for a task that trains in one.

    Args:
        task: The task's folder.
        why: The reason, as a sentence without its full stop.
    """
    number = max(started(), asked_of_accelerate(parent_command()))
    if number > 1:
        raise UserError(
            f"{number} processes were asked for, and {task} trains in one: {why}. Start it without accelerate or "
            "torchrun."
        )


def check_joined(group: Processes, task: str) -> None:
    """Raise `UserError` if several processes were started and this one trains alone: each would write the same run."""
    if group.size == 1 and (number := started()) > 1:
        raise UserError(
            f"{number} processes were started, and {task} trains in one. Start it without accelerate or torchrun."
        )


def join(device: str = "auto") -> "torch.device":
    """Join the processes that were started with this one.

    Args:
        device: As for `pick_device`; several processes take a GPU each, or share the CPU.

    Returns:
        The device of this process.

    Raises:
        UserError: several processes were asked to use one particular GPU.
    """
    if started() == 1:
        if (asked := asked_of_accelerate(parent_command())) > 1:
            start_all(asked)
        return pick_device(device)
    import torch
    from accelerate import PartialState

    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device {device}: several processes take a GPU each. Use auto, cuda or cpu.")
    return PartialState(cpu=device == "cpu" or not torch.cuda.is_available()).device


def leave() -> None:
    """Leave the process group, if there is one. Call it when the wrapped model is out of scope."""
    if current().size > 1:
        import gc

        import torch.distributed as dist

        gc.collect()  # a wrapped model is a reference cycle that would keep the group's threads alive
        dist.barrier()
        dist.destroy_process_group()


def asked_of_accelerate(command: Sequence[str]) -> int:
    """How many processes the command line of an `accelerate launch` asks for; 1 if it is none or does not say.

    Example:
        >>> asked_of_accelerate(["python", "/bin/accelerate", "launch", "--num_processes", "2", "-m", "recsys.train"])
        2
        >>> asked_of_accelerate(["bash"])
        1
    """
    if not any("accelerate" in os.path.basename(word) for word in command[:3]):  # a script, or a module after -m
        return 1
    words = [part for word in command for part in word.split("=", 1)]
    for option in ("--num_processes", "--num-processes"):
        if option in words[:-1] and words[words.index(option) + 1].isdigit():
            return int(words[words.index(option) + 1])
    return 1


def parent_command() -> list[str]:
    """The command line of the process that started this one, if that is accelerate's; else nothing."""
    if "ACCELERATE_MIXED_PRECISION" not in os.environ:  # set by every `accelerate launch`
        return []
    import psutil  # comes with accelerate

    parent = psutil.Process().parent()
    return parent.cmdline() if parent is not None else []


def start_all(number: int) -> None:
    """Start this program again as `number` processes, in place of this one.

    Where there are no GPUs, `accelerate launch` starts one process, however many it was asked for.
    """
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(number)]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.execv(sys.executable, [*launcher, *sys.orig_argv[1:]])
