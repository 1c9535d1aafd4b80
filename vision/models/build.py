"""The model that a preset means, with fresh weights from torch's global generator."""

from __future__ import annotations

import math

import torch
from torch import nn

from harness.errors import UserError
from vision.models.convnets import LeNet, LeNetMNIST, PrincipledCNN
from vision.models.fully_connected import FullyConnected
from vision.models.layers import initialise
from vision.models.resnet import ResNet
from vision.models.topology import TopologyNet
from vision.preset import Preset


def build_model(preset: Preset, shape: tuple[int, ...], outputs: int) -> nn.Module:
    """The model of `preset` for samples of `shape` and `outputs` classes or targets.

    Raises:
        UserError: the model does not fit the data.
    """
    model = _build(preset, shape, outputs)
    initialise(model, preset.init)
    if any(isinstance(module, nn.Conv2d) for module in model.modules()):
        # pools and convolutions take half the time on a CPU
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if preset.freeze_convs:
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.requires_grad_(False)
    return model


def _build(preset: Preset, shape: tuple[int, ...], outputs: int) -> nn.Module:
    match preset.model:
        case "fc":
            return FullyConnected(
                (math.prod(shape), *preset.hidden, outputs),
                preset.act,
                preset.output_act,
                batch_norm=preset.batch_norm,
                input_dropout=preset.input_dropout,
                inner_dropout=preset.inner_dropout,
                dropout=preset.dropout,
            )
        case "topology":
            model = TopologyNet(preset.topology, shape, preset.act, preset.output_act, preset.dropout)
            if model.fc.top.out_features != outputs:
                raise UserError(
                    f"--topology {preset.topology} ends in {model.fc.top.out_features} outputs, and the data has "
                    f"{outputs}. End it with FC_{outputs}."
                )
            return model
        case "cnn":
            return PrincipledCNN(
                shape,
                outputs,
                preset.act,
                batch_norm=preset.batch_norm,
                input_dropout=preset.input_dropout,
                conv_dropout=preset.conv_dropout,
                inner_dropout=preset.inner_dropout,
            )
        case "lenet":
            return LeNet(shape, outputs, preset.act)
        case "lenet-mnist":
            return LeNetMNIST(shape, outputs, preset.act)
        case "resnet20" | "resnet56":
            return ResNet(3 if preset.model == "resnet20" else 9, shape, outputs)
        case _:
            raise ValueError(f"no model is called {preset.model!r}")
