"""A peer in a process of its own, which alone sees the folder that the peer is installed in.

Interpreter and torch are the same as ours, so the two are timed on equal terms; what else the peer brings along, or
would like to replace, stays out of the project's environment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.contest import Contest, Row, measure

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = ROOT / ".peers"  # a folder a peer
SECONDS = 240  # that a peer may take


class PeerAbsentError(Exception):
    """The peer could not be measured; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Measure a peer and this project in one run."""

    quick: bool = False
    """Small sizes, to see that it runs."""
    rounds: int = 7
    """Rounds of steps of each contestant."""
    threads: int = 2
    """Threads that torch may use."""
    out: Path | None = None
    """Write the rows to this JSON file in place of stdout."""


def main(contests: Callable[[bool], Iterable[Contest]], config: Config) -> None:
    """What a peer's command does: measure, and hand over the rows as JSON."""
    torch.set_num_threads(config.threads)
    rows = [row for contest in contests(config.quick) for row in measure(contest, config.rounds)]
    if config.out is None:
        print(json.dumps(rows, indent=1))
    else:
        config.out.write_text(json.dumps(rows), encoding="utf-8")


def measure_elsewhere(peer: str, quick: bool, rounds: int) -> list[Row]:
    """The rows of `python -m benchmarks.peers.<peer>`, with as many threads as this process has.

    Raises:
        PeerAbsentError: the peer is not installed, or its process failed or took too long.
    """
    if not (INSTALLED / peer).is_dir():
        raise PeerAbsentError(f"{peer} is not installed; `python -m benchmarks.peers.install {peer}` does it")
    with TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.json"
        options = ["--rounds", str(rounds), "--threads", str(torch.get_num_threads()), "--out", str(rows)]
        command = [sys.executable, "-m", f"benchmarks.peers.{peer}", *options, *(["--quick"] if quick else [])]
        try:
            subprocess.run(
                command, cwd=ROOT, env=environment(peer), check=True, capture_output=True, text=True, timeout=SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise PeerAbsentError(f"{peer} took more than {SECONDS} s") from error
        except subprocess.CalledProcessError as error:
            lines = error.stderr.strip().splitlines() or [f"exit status {error.returncode}"]
            raise PeerAbsentError(f"{peer} failed: {lines[-1]}") from error
        found: list[Row] = json.loads(rows.read_text(encoding="utf-8"))
    return found


def environment(peer: str) -> dict[str, str]:
    """Variables of the peer's process: the peer's folder comes last on the path, so it replaces nothing."""
    path = os.pathsep.join((str(ROOT), str(INSTALLED / peer)))
    nowhere = "http://127.0.0.1:9"  # deepctr-torch asks PyPI for its newest version whenever it is imported
    return os.environ | {"PYTHONPATH": path, "HTTP_PROXY": nowhere, "HTTPS_PROXY": nowhere, "PYTHONWARNINGS": "ignore"}
