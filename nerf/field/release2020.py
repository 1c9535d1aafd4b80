"""The networks that the authors of arXiv 2006.12878 released: their weights by our names.

A checkpoint of the release holds, besides the optimizer, `model_coarse_state_dict` and `model_fine_state_dict`, of 4
layers of 128 units each:

    layer1, layers_xyz.0, .1, ...    the trunk; a layer as wide as trunk and position is one where the position joins
    fc_alpha, fc_feat                density, feature
    layers_dir.0, fc_rgb             the layer that sees feature and direction, side by side; colour

They were trained on pictures 800 pixels wide with rays that start in the upper left corner of their pixels.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.errors import UserError
from nerf.field.encoding import encoded_width
from nerf.field.fields import Fields, Rendering
from nerf.field.network import Architecture, Join, Network

NAMES = {"fc_alpha": "density", "fc_feat": "feature", "layers_dir.0": "view", "fc_rgb": "colour", "layer1": "layers.0"}
WIDTH = {False: 800, True: 1008}  # of the pictures they were trained on: synthetic, real


def load_2020(path: Path, *, white_background: bool, samples_coarse: int = 64, samples_fine: int = 128) -> Fields:
    """The fields in a checkpoint of the release.

    Args:
        path: The file; no code in it is run.
        white_background: What is behind the scene.
        samples_coarse: A ray; published are 64.
        samples_fine: More, for the fine network; published are 128.

    Raises:
        UserError: the file cannot be read, or is no such checkpoint.
    """
    content = _read(path)
    states = [_weights(content, f"model_{name}_state_dict", path) for name in ("coarse", "fine")]
    architecture = architecture_of(states[0], path)
    rendering = Rendering(
        samples_coarse=samples_coarse, samples_fine=samples_fine, white_background=white_background, noise=0.0
    )
    fields = Fields(architecture, rendering)
    for network, state in zip(fields.networks().values(), states, strict=False):
        try:
            network.load_state_dict(renamed(state, network))
        except (KeyError, RuntimeError, ValueError) as error:
            raise _no_checkpoint(path, " ".join(str(error).split())) from error
    return fields


def architecture_of(state: Mapping[str, Tensor], path: Path) -> Architecture:
    """The shape of the networks in a checkpoint, from the sizes of its weights."""
    try:
        width, positions = state["layer1.weight"].shape
        views = state["layers_dir.0.weight"].shape[1] - width
    except (KeyError, ValueError) as error:
        raise _no_checkpoint(path, f"no usable {error}") from error
    depth = 1 + sum(re.fullmatch(r"layers_xyz\.\d+\.weight", name) is not None for name in state)
    position_frequencies, view_frequencies = ((size // 3 - 1) // 2 for size in (positions, views))
    if (encoded_width(3, position_frequencies), encoded_width(3, view_frequencies)) != (positions, views):
        raise _no_checkpoint(path, f"inputs of {positions} and {views} numbers")
    return Architecture(
        depth=depth, width=width, position_frequencies=position_frequencies, view_frequencies=view_frequencies
    )


def renamed(state: Mapping[str, Tensor], network: Network) -> dict[str, Tensor]:
    """The weights of the release under the names of `network`; those of a join are split between its two inputs."""
    modules = dict(network.named_modules())
    found = {}
    for name, value in state.items():
        layer, _, kind = name.rpartition(".")
        ours = NAMES.get(layer) or f"layers.{int(layer.removeprefix('layers_xyz.')) + 1}"
        join = modules[ours]
        if not isinstance(join, Join):
            found[f"{ours}.{kind}"] = value
        elif kind == "bias":
            found[f"{ours}.inner.bias"] = value
        else:
            inner = join.inner.in_features
            found[f"{ours}.inner.weight"], found[f"{ours}.extra.weight"] = value[:, :inner], value[:, inner:]
    return found


def pixel_offset(width: int, ndc: bool) -> float:
    """Where in a pixel a ray starts so that the pictures of the release, averaged down to `width`, are met.

    Its rays start in the corner of each of the pixels of which one of ours is the mean.

    Example:
        >>> pixel_offset(800, ndc=False), pixel_offset(400, ndc=False)
        (0.0, 0.25)
    """
    return 0.5 - 0.5 * width / WIDTH[ndc]


def _read(path: Path) -> Any:
    """The content of a file of torch, read without running code from it."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:  # torch does not verify the checksums it stores
                if broken := archive.testzip():
                    raise ValueError(f"the checksum of {broken} differs")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about unusual content, which is refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types of errors for damaged files
        why = (
            (getattr(error, "strerror", None) or str(error) or type(error).__name__)
            .splitlines()[0]
            .split(". ")[0][:100]
        )
        raise UserError(f"{path} cannot be read ({why}). Give a checkpoint of 2020.") from error


def _weights(content: Any, key: str, path: Path) -> Mapping[str, Tensor]:
    state = content.get(key) if isinstance(content, dict) else None
    if not isinstance(state, Mapping):
        raise _no_checkpoint(path, f"no {key}")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or not value.is_floating_point():
            raise _no_checkpoint(path, f"{str(name)[:40]} in {key} is no weight")
        if not bool(value.isfinite().all()):
            raise _no_checkpoint(path, f"{name[:40]} in {key} has numbers that are not finite")
    return state


def _no_checkpoint(path: Path, why: str) -> UserError:
    return UserError(f"{path} is no checkpoint of the 2020 release: {why}. Give one, such as synth_lego_dfa.ckpt.")
