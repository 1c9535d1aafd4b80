"""The command `python -m vision.bottleneck`; see `vision.bottleneck.train`."""

from harness import cli
from vision.bottleneck.train import Config, main

cli.run(Config, main)
