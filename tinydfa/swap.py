"""Swapping a model's layers for those of `tinydfa.feedback_layers`, in place, and back.

A layer is swapped by its class: parameters, their names and hooks stay where they are.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from tinydfa.errors import DFAError, PointError
from tinydfa.feedback import Feedback
from tinydfa.feedback_layers import LayerFeedback, draw, keeps_its_weights, own_class, swapped_class


def swap(model: nn.Module, rule: Any, feedback: Feedback, state: dict[str, Tensor]) -> dict[str, nn.Module]:
    """Give every Linear and Conv layer of `model` its feedback matrix, taken from `state` where it is there.

    Args:
        model: The model.
        rule: A layer-wise rule.
        feedback: What the matrices are drawn from; every layer has a seed of its own.
        state: Matrices and numbers of passes by name of the layer; what is drawn is added.

    Returns:
        The swapped layers by name.

    Raises:
        PointError: `model` has no layer of those kinds.
        DFAError: A lazy layer has no shape yet.
    """
    layers = layers_to_swap(model, rule.name)
    for number, (name, layer) in enumerate(layers.items()):
        any_layer: Any = layer
        seed = feedback.seed * 65_537 + number + 1
        drawn = state.get(f"{name}.feedback")
        if drawn is None:
            drawn = draw(any_layer.weight, feedback, seed)
        passes = state.get(f"{name}.passes", torch.zeros((), dtype=torch.int64))
        state[f"{name}.feedback"] = drawn
        any_layer.layer_feedback = LayerFeedback(rule, drawn, feedback, seed, passes, any_layer.weight)
        any_layer.__class__ = swapped_class(layer)
    left = [name or type(model).__name__ for name, module in model.named_modules() if keeps_its_weights(module)]
    if left:
        warnings.warn(
            f"{rule} replaces the backward pass of Linear and Conv layers. The signal still passes these by their "
            f"own weights, as in backpropagation: {', '.join(left)}.",
            stacklevel=6,
        )
    return layers


def layers_to_swap(model: nn.Module, rule: str) -> dict[str, nn.Module]:
    """The layers that a layer-wise rule replaces the backward pass of, by name."""
    lazy = [name for name, parameter in model.named_parameters() if is_lazy(parameter)]
    if lazy:
        raise DFAError(
            f"{', '.join(lazy)} have no shape yet, so {rule} cannot draw matrices of the same shape. Run the model "
            "once, then attach."
        )
    empty = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if empty:
        raise DFAError(
            f"{', '.join(empty[:6])}{' and others' if len(empty) > 6 else ''} stand on the meta device, and {rule} gives "
            "every layer a matrix beside its weight, which to_empty() would not fill. Call model.to_empty(device=...), "
            "load or initialise the weights, then attach."
        )
    layers = {name: layer for name, layer in model.named_modules() if swapped_class(layer) is not None}
    if not layers:
        raise PointError(
            f"{rule} replaces the backward pass of Linear and Conv1d/2d/3d layers, and {type(model).__name__} has "
            "none. Use a method that broadcasts (dfa, sdfa, tdfa, drtp), or build the model of those layers."
        )
    return layers


def swap_back(layers: dict[str, nn.Module], state: dict[str, Tensor]) -> None:
    """Undo `swap`, keeping in `state` how many passes each layer has made."""
    state.update(passes(layers))
    for layer in layers.values():
        layer.__class__ = own_class(layer)
        del layer._modules["layer_feedback"]


def passes(layers: dict[str, Any]) -> dict[str, Tensor]:
    """How many forward passes each swapped layer has made, under the keys of a saved state."""
    return {f"{name}.passes": layer.layer_feedback.passes.cpu().clone() for name, layer in layers.items()}
