"""The `forward` of a layer that has a B, on the instance, and putting it there and away again.

The class stays the layer's own, for whatever goes by it. A copy, a pickle and a replica compute with their own weights.
"""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import cached, is_parametrized

from tinydfa.errors import ShapeError
from tinydfa.layerwise.feedback_layers import LayerFeedback, joined
from tinydfa.layerwise.known_layers import Use, use_of
from tinydfa.surroundings.tracing import is_tracing


class LayerForward:
    """The `forward` of a layer that has a B.

    Attributes:
        layer: The layer.
        use: How it uses its weight.
        before: A `forward` that the instance had already; None: its class's.
        alone: Nothing but the layer's class stands behind it, so that the known forward of such layers may run.
        active: False when the layer's B was taken away while somebody else's forward still calls this one.
    """

    def __init__(self, layer: nn.Module, use: Use, before: Any) -> None:
        self.layer, self.use, self.before, self.active = layer, use, before, True
        attached = hasattr(type(layer), "_dfa_stands_for")  # the model is itself a layer: its own forward knows more
        self.alone = use.forward is not None and before is None and not attached

    def __call__(self, input: Any, *rest: Any, **named: Any) -> Any:
        if not self.active or is_tracing():
            return self.plain(input, *rest, **named)
        if self.alone and self.use.forward is not None:
            own: Any = self.layer.layer_feedback
            return self.use.forward(self.layer, own, input)
        return self.beside(input, *rest, **named)

    def plain(self, *inputs: Any, **named: Any) -> Any:
        if self.before is not None:
            return self.before(*inputs, **named)
        return type(self.layer).forward(self.layer, *inputs, **named)

    def beside(self, *inputs: Any, **named: Any) -> Any:
        """The layer's own output, from inputs that are cut off; their gradients by the product with B."""
        with cached() if is_parametrized(self.layer) else nullcontext():  # spectral norm iterates when it is computed
            output = self.plain(*map(detached, inputs), **{name: detached(value) for name, value in named.items()})
            weight = getattr(self.layer, self.use.weight).detach()
        own: Any = self.layer.layer_feedback
        matrix = own.whole(weight, own.of_this_pass(weight))
        signal = self.use.product(Still(self.layer), matrix, *inputs, **named)
        if signal.shape != output.shape:
            raise ShapeError(
                f"the product that {type(self.layer).__name__} is registered with has shape {tuple(signal.shape)}, and "
                f"its forward returns {tuple(output.shape)}. Mend the function given to tinydfa.register_layer."
            )
        return joined(output, signal) if torch.is_grad_enabled() else output

    def replicate(self) -> Any:
        """A replica for another device (`nn.DataParallel`), which computes with its own weights."""
        replica: Any = type(self.layer)._replicate_for_data_parallel(self.layer)
        vars(replica)["forward"] = LayerForward(replica, self.use, self.before)
        return replica

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "use"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy or a pickle knows its use by the class of its layer: a registered function may not be picklable."""
        vars(self).update(state, use=use_of(state["layer"]))

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.before or type(self.layer).forward.__get__(self.layer))


class Still:
    """A layer whose tensors get no gradient: they have theirs by the layer's own forward."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer

    def __getattr__(self, name: str) -> Any:
        return detached(getattr(self.layer, name))


def detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def put_in(layer: nn.Module, use: Use, feedback: LayerFeedback) -> None:
    """Give a layer its B and the forward that uses it."""
    place = vars(layer)
    layer.add_module("layer_feedback", feedback)
    forward = LayerForward(layer, use, place.get("forward"))
    place["forward"] = forward
    place["_replicate_for_data_parallel"] = forward.replicate


def put_back(layer: nn.Module) -> None:
    """Undo `put_in`. Where somebody wrapped the forward since, ours stays inside it and does what the layer does."""
    place = vars(layer)
    replicate = place.pop("_replicate_for_data_parallel", None)
    ours: Any = getattr(replicate, "__self__", None)
    layer._modules.pop("layer_feedback", None)
    if not isinstance(ours, LayerForward):
        return
    ours.active, before = False, ours.before
    if place.get("forward") is ours:
        del place["forward"]
        if before is not None:
            place["forward"] = before
