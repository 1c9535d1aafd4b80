"""A finished run, loaded from its folder: the model with its best weights, and the encoder of its inputs."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from harness.errors import UserError
from harness.methods import named
from harness.run import read_config
from harness.run.checkpoint import read_checkpoint
from recsys.log.encoder import ENCODER, Encoder
from recsys.models.click_models import build_model
from recsys.preset import MODELS, Preset

TRAIN = "Give the folder of a run that python -m recsys.train has finished"


class SavedRun(NamedTuple):
    """What `load_run` gives."""

    model: nn.Module  # in evaluation mode, with the weights of the best validation AUC
    encoder: Encoder  # of the training log
    settings: dict[str, Any]  # its config.yaml


def load_run(folder: Path, device: torch.device) -> SavedRun:
    """The model of a finished run, ready to predict, on `device`.

    No code in the folder is executed: the checkpoint is read with ``weights_only``, the other files are YAML and JSON.

    Raises:
        UserError: the folder has no finished run of this task, or a file of it is damaged.
    """
    settings = _settings(folder)
    encoder = _encoder(folder)
    checkpoint = read_checkpoint(folder)
    if checkpoint is None:
        raise UserError(f"{folder}: its checkpoint.pt is missing, so there are no weights. {TRAIN}.")
    model = build_model(_preset(folder, settings), encoder.field_dims)
    try:
        model.load_state_dict(checkpoint["state"]["best"]["weights"])
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        files = f"the config.yaml and {ENCODER} in its folder"
        reason = str(error).splitlines()[0]
        raise UserError(f"{folder / 'checkpoint.pt'} does not belong to {files} ({reason}). {TRAIN}.") from error
    return SavedRun(model.to(device).eval(), encoder, settings)


def _settings(folder: Path) -> dict[str, Any]:
    """The run's configuration.

    Raises:
        UserError: the run belongs to another task, or is not finished.
    """
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{folder}: there is no run, because it has no config.yaml. {TRAIN}.")
    settings = read_config(folder, TRAIN)
    if settings.get("model") not in list(MODELS):  # a list: in a damaged file the value may be unhashable
        raise UserError(f"{folder}: the run is not of a click model. {TRAIN}.")
    if not (folder / "result.json").is_file():
        raise UserError(f"{folder}: the run is not finished. Continue it with --resume first.")
    return settings


def _preset(folder: Path, settings: dict[str, Any]) -> Preset:
    """The preset among a run's settings."""
    known = {field.name: settings[field.name] for field in fields(Preset) if field.name in settings}
    try:
        return Preset(**known | {"method": named(known["method"]), "mlp": tuple(known["mlp"])})
    except (KeyError, TypeError, ValueError, UserError) as error:
        raise UserError(f"{folder / 'config.yaml'} is not what a run writes ({error}). {TRAIN}.") from error


def _encoder(folder: Path) -> Encoder:
    """The encoder that turns raw rows into category ids."""
    path = folder / ENCODER
    try:
        return Encoder.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is missing or damaged ({error}). {TRAIN}.") from error
