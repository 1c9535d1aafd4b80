"""Run the scoreboard: `python -m reproduce.scoreboard --methods bp shallow dfa fitted --tasks graphs --seeds 3`."""

from harness import cli
from reproduce.scoreboard.command import Config, main

cli.run(Config, main)
