"""Runs of this task for the tests: options by name, as on the command line."""

from typing import Any

from harness.command import run_command
from harness.options import make
from recsys.train import Config, load, train


def options(**given: Any) -> Config:
    """The configuration that these options mean."""
    if "epochs" in given:
        given["max_epochs"] = given.pop("epochs")
    return make(Config, **given)


def main(config: Config) -> dict[str, Any]:
    """What the command does with a configuration."""
    return run_command("recsys", config, load, train)
