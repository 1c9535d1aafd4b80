"""Which device a run uses, and how a result names it."""

import platform
from typing import TYPE_CHECKING

from harness.errors import UserError

if TYPE_CHECKING:
    import torch


def pick_device(name: str = "auto") -> "torch.device":
    """The torch device called `name`: "auto" (the first GPU, else the CPU), "cpu", "cuda", "cuda:1" or "mps".

    Raises:
        UserError: this machine has no such device, or the name is not a device.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name}: no such kind of device. Use auto, cpu, cuda, cuda:1 or mps.") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise UserError(f"--device {name}: torch sees {found} CUDA GPUs here. Use --device auto or --device cpu.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"--device {name}: torch sees no Apple GPU here. Use --device auto or --device cpu.")
    if device.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"--device {name}: not supported. Use auto, cpu, cuda, cuda:1 or mps.")
    return device


def describe_device(device: "torch.device | str") -> str:
    """What a result says about the hardware, such as "cuda (NVIDIA H200)" or "cpu (x86_64, 1 thread)"."""
    import torch

    device = torch.device(device)
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    threads = torch.get_num_threads()
    return f"{device.type} ({platform.machine()}, {threads} thread{'s' if threads > 1 else ''})"
