"""Install peers that the project's own environment is kept clear of.

    python -m benchmarks.peers.install
    python -m benchmarks.peers.install biotorch

Each goes into a folder of its own, `.peers/<name>`, from the file `requirements-<name>.txt` beside this one, and
without what it depends on: torch is the project's, and biotorch would bring torchvision for models that are not used.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from benchmarks.peers.process import INSTALLED
from harness.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Config:
    """Install peers, each into a folder of its own."""

    peers: tyro.conf.Positional[tuple[Literal["biotorch", "deepctr"], ...]] = ("biotorch", "deepctr")
    """Which."""


def main(config: Config) -> None:
    """Install them one by one; a folder that is there already is made anew."""
    for peer in config.peers:
        folder = INSTALLED / peer
        shutil.rmtree(folder, ignore_errors=True)
        requirements = Path(__file__).with_name(f"requirements-{peer}.txt")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        if subprocess.run([*pip, "--target", str(folder), "-r", str(requirements)], check=False).returncode != 0:
            shutil.rmtree(folder, ignore_errors=True)
            raise UserError(f"{peer} could not be installed, for the reason that pip gives above. Try again later.")
        print(f"{peer}: {folder}")


if __name__ == "__main__":
    from harness import cli

    cli.run(Config, main)
