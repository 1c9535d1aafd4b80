"""What a measurement was made on."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime

import torch


def environment(device: str) -> dict[str, str]:
    """Processor or GPU, threads, versions, date."""
    name = torch.cuda.get_device_name() if device.startswith("cuda") else processor()
    return {
        "device": name,
        "threads": str(torch.get_num_threads()),
        "cores": str(os.cpu_count()),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def processor() -> str:
    """The processor's model, where Linux tells."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
