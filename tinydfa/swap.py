"""Giving the layers of a model their B, in place, and taking it away again.

A layer gets another `forward`, on the instance, and a submodule that holds B. Its class, its parameters, their names
and its hooks stay as they are, so that whatever replaces, parametrises or quantises layers by their class finds what it
looks for, before and after. Layers that come later, in the place of others or beside them, are given a B before the
next pass.
"""

from __future__ import annotations

import inspect
import re
import warnings
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import cached, is_parametrized

from tinydfa.errors import DFAError, PointError, ShapeError
from tinydfa.feedback import Feedback
from tinydfa.feedback_layers import LayerFeedback, draw, joined
from tinydfa.kept_weights import Watcher, certain, doubtful, is_swapped
from tinydfa.known_layers import Use, use_of
from tinydfa.passes import in_backward
from tinydfa.undisturbed import state_kept

WRAPPERS = re.compile(r"(^|\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?=\.|$)")


class LayerForward:
    """The `forward` of a layer that has a B.

    Attributes:
        layer: The layer.
        use: How it uses its weight.
        before: A `forward` that the instance had already; None: its class's.
        active: False when the layer's B was taken away while somebody else's forward still calls this one.
    """

    def __init__(self, layer: nn.Module, use: Use, before: Any) -> None:
        self.layer, self.use, self.before, self.active = layer, use, before, True

    def __call__(self, input: Any, *rest: Any, **named: Any) -> Any:
        if self.active and self.use.forward is not None and self.before is None:
            return self.use.forward(self.layer, self.layer.layer_feedback, input)
        if not self.active:
            return self.plain(input, *rest, **named)
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
        replica: Any = type(self.layer)._replicate_for_data_parallel(self.layer)  # type: ignore[operator]
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


class Swap:
    """The layers of one model under a layer-wise rule.

    Args:
        model: The model.
        rule: A layer-wise rule.
        feedback: What the matrices are drawn from; every layer has a seed of its own.
        state: Matrices, numbers of layers and of their passes, by name of the layer; what is drawn is added.
        settled: Names of modules that need not be told of again; those that are told are added.

    Attributes:
        layers: Those that have a B, by name.

    Raises:
        PointError: `model` has no layer of a known kind.
        DFAError: A layer's weight has no shape yet, or another than it computes with.
    """

    def __init__(
        self, model: nn.Module, rule: Any, feedback: Feedback, state: dict[str, Tensor], settled: set[str]
    ) -> None:
        self.model, self.rule, self.feedback, self.state, self.settled = model, rule, feedback, state, settled
        self.layers: dict[str, nn.Module] = {}
        self.seen: list[nn.Module] = []
        self.watchers: list[Watcher] = []
        refuse_lazy(model, rule.name)
        try:
            self.take(known_layers(model))
        except DFAError:
            for layer in self.layers.values():
                put_back(layer)
            raise
        if not self.layers:
            raise PointError(
                f"{rule} replaces the backward pass of Linear, Conv, ConvTranspose and Bilinear layers, and "
                f"{type(model).__name__} has none. Use a method that broadcasts (dfa, sdfa, tdfa, drtp), or say how its "
                "layers use their weights: tinydfa.register_layer."
            )
        self.tell(certain(model), stacklevel=7)
        self.watch()
        self.seen = list(model.modules())
        self.handle = model.register_forward_pre_hook(self)

    def __call__(self, module: nn.Module, inputs: Any) -> None:
        """Before a pass: see whether layers came or went."""
        if torch.compiler.is_compiling() or not torch.is_grad_enabled() or in_backward():
            return
        modules = list(self.model.modules())
        if len(modules) != len(self.seen) or any(a is not b for a, b in zip(modules, self.seen, strict=True)):
            self.follow()

    def follow(self) -> None:
        """Give layers that came a B, and take it from those that went."""
        refuse_lazy(self.model, self.rule.name)
        kept = {id(module) for module in self.seen}
        self.state.update(self.passes())
        here = known_layers(self.model)
        names = {id(layer): name for name, layer in here.items()}
        gone = {name: layer for name, layer in self.layers.items() if id(layer) not in names}
        for layer in gone.values():
            put_back(layer)
        for name, layer in self.layers.items():
            new = names.get(id(layer), name)
            if new != name:  # it was wrapped
                self.state.update({f"{new}.{key}": self.state.pop(f"{name}.{key}") for key in ("feedback", *COUNTS)})
        with torch.inference_mode(False):
            self.take(here)
        new_modules = {id(module) for module in self.model.modules()} - kept
        by_name = {name or type(self.model).__name__: id(m) for name, m in self.model.named_modules()}
        self.tell([name for name in certain(self.model) if by_name[name] in new_modules], stacklevel=2)
        self.watch(new_modules)
        self.seen = list(self.model.modules())

    def take(self, layers: dict[str, nn.Module]) -> None:
        """Make `layers` the ones that have a B."""
        self.layers = layers
        taken = {int(number) for key, number in self.state.items() if key.endswith(".number")}
        for place, (name, layer) in enumerate(layers.items()):
            use = use_of(layer)
            if use is None or is_swapped(layer):
                continue
            weight = weight_of(layer, use, name)
            if f"{name}.number" not in self.state:
                number = place if place not in taken else max(taken) + 1
                taken.add(number)
                self.state[f"{name}.number"] = torch.tensor(number)
            seed = self.feedback.seed * 65_537 + int(self.state[f"{name}.number"]) + 1
            drawn = self.state.get(f"{name}.feedback")
            if drawn is None or drawn.shape != weight.shape:
                drawn = self.state[f"{name}.feedback"] = draw(weight, self.feedback, seed)
            passes = self.state.setdefault(f"{name}.passes", torch.zeros((), dtype=torch.int64))
            put_in(layer, use, LayerFeedback(self.rule, drawn, self.feedback, seed, passes, weight))

    def passes(self) -> dict[str, Tensor]:
        """How many forward passes each layer has made, under the keys of a saved state."""
        layers: dict[str, Any] = {name: layer for name, layer in self.layers.items() if is_swapped(layer)}
        return {f"{name}.passes": layer.layer_feedback.passes.cpu().clone() for name, layer in layers.items()}

    def watch(self, among: set[int] | None = None) -> None:
        """Look at the first pass of modules that may multiply by a table of theirs."""
        for name, module in doubtful(self.model).items():
            if name not in self.settled and (among is None or id(module) in among):
                self.watchers.append(Watcher(name, module, self.seen_passing))

    def seen_passing(self, name: str, multiplies: bool) -> None:
        if multiplies:
            self.tell([name], stacklevel=4)
        self.settled.add(name)

    def tell(self, names: list[str], stacklevel: int) -> None:
        names = [name for name in names if name not in self.settled]
        self.settled.update(names)
        if names:
            warnings.warn(
                f"{self.rule} replaces the backward pass of layers that it knows. The signal still passes these by "
                f"their own weights, as in backpropagation: {', '.join(names)}. Build them of nn.Linear, or say how "
                "their forward uses the weight: tinydfa.register_layer.",
                stacklevel=stacklevel,
            )

    def undo(self) -> None:
        """Leave the model as it was, keeping in `state` how many passes each layer has made."""
        self.state.update(self.passes())
        self.handle.remove()
        for watcher in self.watchers:
            watcher.remove()
        for layer in self.layers.values():
            put_back(layer)


COUNTS = ("number", "passes")


def known_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that a rule can give a B, by name; wrappers do not count in a name."""
    layers = {name: layer for name, layer in model.named_modules() if use_of(layer) is not None}
    return {WRAPPERS.sub("", name).removeprefix("."): layer for name, layer in layers.items()}


def refuse_lazy(model: nn.Module, rule: str) -> None:
    lazy = [name for name, parameter in model.named_parameters() if is_lazy(parameter)]
    if lazy:
        raise DFAError(
            f"{', '.join(lazy)} have no shape yet, so {rule} cannot draw matrices of the same shape. Run the model "
            "once, then attach."
        )
    empty = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if empty:
        raise DFAError(
            f"{', '.join(empty[:6])}{' and others' if len(empty) > 6 else ''} stand on the meta device, and {rule} "
            "gives every layer a matrix beside its weight, which to_empty() would not fill. Call "
            "model.to_empty(device=...), load or initialise the weights, then attach."
        )


def weight_of(layer: nn.Module, use: Use, name: str) -> Tensor:
    """The weight that a layer computes with now. Computing it changes nothing (spectral norm iterates when it does)."""
    if is_parametrized(layer):
        with state_kept(layer.parametrizations), torch.no_grad():  # type: ignore[arg-type]
            weight: Tensor = getattr(layer, use.weight)
    else:
        weight = getattr(layer, use.weight)
    if weight.dim() < 2 or weight.numel() == 0:
        raise DFAError(
            f"the weight of {name!r} has shape {tuple(weight.shape)}, which is not a layer's: a wrapper holds it "
            "flattened or in parts, it seems. Attach first, then wrap the model (FullyShardedDataParallel)."
        )
    return weight.detach()


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
    if ours is None:
        return
    ours.active = False
    if place.get("forward") is ours:
        del place["forward"]
        if ours.before is not None:
            place["forward"] = ours.before
