"""Weight alignment: how the weight W of each layer stands to the matrix B that its signal goes through."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import nn

from tinydfa.errors import DFAError
from tinydfa.examining.alignment import method_of
from tinydfa.layerwise.feedback_layers import LayerFeedback
from tinydfa.layerwise.known_layers import use_of
from tinydfa.layerwise.swap import known_layers, weight_of


class WeightAlignment(NamedTuple):
    """W against B, both shaped as the weight and read as one vector.

    Attributes:
        angle: Between them, in degrees: 0 the same direction, 90 unrelated, as where training starts under fa.
        norm_ratio: Frobenius norm of B over that of W.
    """

    angle: float
    norm_ratio: float


def weight_alignment(model: nn.Module) -> dict[str, WeightAlignment]:
    """The angle and the norm ratio between W and B, by layer.

    Args:
        model: A model that a layer-wise rule (fa, usf, brsf, frsf) is at work on.

    Returns:
        By name of the layer. W is the weight that the layer computes with now (its parametrisations applied), B the
        matrix of its last pass, which under brsf changes with every one.

    Raises:
        DFAError: No layer-wise rule is at work.

    Example:
        >>> from tinydfa import attach
        >>> net = nn.Sequential(nn.Linear(2, 1), nn.Tanh(), nn.Linear(1, 2))
        >>> _ = nn.init.constant_(net[0].weight, -3.0)
        >>> attachment = attach(net, "usf")
        >>> round(weight_alignment(net)["0"].angle, 4)
        0.0
    """
    _, link = method_of(model)
    inner = getattr(model, "module", model) if hasattr(model, "require_backward_grad_sync") else model
    found = {name: layer for name, layer in known_layers(inner).items() if hasattr(layer, "layer_feedback")}
    if not found:
        raise DFAError(
            f"{link.rule} has no matrix for each layer to compare with its weight: a layer-wise rule (fa, usf, brsf, "
            "frsf) has. Switch with attachment.method = 'fa', or use measure_alignment, which compares gradients."
        )
    return {name: compare(name, layer) for name, layer in found.items()}


@torch.no_grad()
def compare(name: str, layer: nn.Module) -> WeightAlignment:
    own: Any = layer.layer_feedback
    assert isinstance(own, LayerFeedback)
    use = use_of(layer)
    assert use is not None
    weight = weight_of(layer, use, name)
    back = own.whole(weight, own.part(weight))
    weight, back = weight.double().flatten(), back.double().flatten()
    sizes = float(weight.norm()), float(back.norm())
    if min(sizes) == 0:
        return WeightAlignment(90.0, sizes[1] / sizes[0] if sizes[0] else math.inf)
    cosine = float(weight @ back) / (sizes[0] * sizes[1])
    return WeightAlignment(math.degrees(math.acos(max(-1.0, min(1.0, cosine)))), sizes[1] / sizes[0])
