"""What a measurement was made on, and where it is kept."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

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


def save(path: Path, device: str, rows: list[dict[str, Any]]) -> None:
    """Write rows of numbers, with what they were measured on, as JSON and beside it as a Markdown table."""
    about = environment(device)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"environment": about, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(markdown(rows, about), encoding="utf-8")


def markdown(rows: list[dict[str, Any]], about: dict[str, str]) -> str:
    """The rows as a table, a line on the machine below it; a number that does not apply stays empty."""
    names = list(rows[0])
    lines = [names, ["---" if isinstance(rows[0][name], str) else "---:" for name in names]]
    lines += [["" if row[name] is None else str(row[name]) for name in names] for row in rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\nMeasured on {', '.join(f'{key} {value}' for key, value in about.items())}.\n"
