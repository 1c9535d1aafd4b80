"""The command `python -m vision.bottleneck`; see `vision.bottleneck.train`."""

from harness.command import command
from vision.bottleneck.train import ALONE, Config, load, train

command("vision", Config, load, train, alone=ALONE)
