"""The fields that a run trained, out of its folder."""

from __future__ import annotations

from dataclasses import fields as fields_of
from pathlib import Path
from typing import Any

import torch

from harness.errors import UserError
from harness.methods import named
from harness.run import read_config
from harness.run.checkpoint import read_checkpoint
from nerf.field.fields import Fields
from nerf.presets import Preset
from nerf.step import make_grid


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings of the run in `folder`, its scene among them.

    Raises:
        UserError: there is no run of this task.
    """
    settings = read_config(Path(folder), "Give the folder of a run of nerf.train")
    if not {"samples_coarse", "dataset", "scene", "method"} <= set(settings):
        raise UserError(f"{Path(folder) / 'config.yaml'} is not of a run of nerf.train. Give the folder of one.")
    return settings


def load_run(folder: Path, device: torch.device | str = "cpu") -> tuple[Fields, Preset]:
    """The fields that a run trained, as of its last checkpoint, and its preset.

    Raises:
        UserError: there is no run of this task in `folder`, or it has no checkpoint yet.
    """
    settings = read_settings(folder)
    content = read_checkpoint(Path(folder))
    if content is None:
        raise UserError(f"{folder} has no checkpoint yet. Let the run come to one, or start it again with --resume.")
    names = {field.name for field in fields_of(Preset)}
    path = Path(folder) / "config.yaml"
    try:
        preset = Preset(**{k: v for k, v in settings.items() if k in names} | {"method": named(settings["method"])})
        fields = Fields(preset.architecture(), preset.rendering(settings["white_background"]))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not what a run writes ({error}). Give the folder of another.") from error
    try:
        fields.load_state_dict(content["state"]["fields"])
        if preset.skip_empty:
            state = content["state"]["grid"]
            grid = make_grid(state["bounds"], preset.samples_coarse)
            grid.load_state_dict(state)
            fields.occupied = grid.to(device).occupied
    except (KeyError, TypeError, RuntimeError) as error:
        why = " ".join(str(error).split())[:100]
        raise UserError(f"{path} and the checkpoint beside it do not match ({why}). Give another run.") from error
    return fields.to(device), preset
