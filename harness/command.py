"""A training as a command: its options, its data, its folder, in this order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from harness import cli, processes
from harness.config import BaseConfig
from harness.device import pick_device
from harness.run import Run


class Training(Protocol):
    """What a task's configuration must provide."""

    @property
    def name(self) -> str:
        """Name of the run's folder, below `runs/<task>`."""

    def settings(self) -> dict[str, Any]:
        """The settings that determine the run's numbers, by name."""


def command(
    task: str,
    config_class: type[BaseConfig],
    load: Callable[[Any], Any],
    train: Callable[[Any, Run, Any], Any],
    *,
    about: Callable[[Any], dict[str, Any]] | None = None,
    alone: str = "",
    argv: list[str] | None = None,
) -> None:
    """Run a training command; exits as `harness.cli.run` does.

    Args:
        task: The task's folder.
        config_class: The options, with what `Training` asks for.
        load: Configuration to data. It is called before the run's folder is made, so that a missing file leaves none.
        train: The training: configuration, run and data.
        about: Data to what belongs to the settings and only the data tells, by name (see `BaseConfig.found`).
        alone: Why one process has to train alone; empty if several can.
        argv: The arguments; those of this process if None.
    """

    def main(config: Any) -> None:
        if alone:
            processes.refuse(task, alone)
            run_command(task, config, load, train, about)
        else:
            device = processes.join(config.device)
            config = replace(config, device=str(device)) if processes.started() > 1 else config
            run_command(task, config, load, train, about)
            processes.leave()

    cli.run(config_class, main, argv)


def run_command(
    task: str,
    config: Any,
    load: Callable[[Any], Any],
    train: Callable[[Any, Run, Any], Any],
    about: Callable[[Any], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Load, open the run's folder, train; the result of `train`."""
    pick_device(config.device)
    data = load(config)
    found = {} if about is None else about(data)
    settings = config.settings() | found | {"device": config.device, "data_dir": config.data_dir}
    options: dict[str, Any] = {"lengths": config.lengths(), "may_change": config.may_change, "trackers": config.tracker}
    with Run(task, config.name, settings, config.out, config.resume, **options) as run:
        return train(config, run, data)
