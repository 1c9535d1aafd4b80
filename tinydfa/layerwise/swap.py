"""Giving the layers of a model their B, in place, and taking it away again.

A layer gets another `forward`, on the instance, and a submodule that holds B. Its class, its parameters, their names
and its hooks stay as they are, so that whatever replaces, parametrises or quantises layers by their class finds what it
looks for, before and after. Layers that come later, in the place of others or beside them, are given a B before the
next pass.
"""

from __future__ import annotations

import re
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

from tinydfa.errors import DFAError, PointError
from tinydfa.feedback.drawn import Feedback
from tinydfa.layerwise.feedback_layers import LayerFeedback, draw
from tinydfa.layerwise.kept_weights import Watcher, certain, doubtful, is_swapped
from tinydfa.layerwise.known_layers import Use, use_of
from tinydfa.layerwise.layer_forward import put_back, put_in
from tinydfa.passes.forward_pass import in_backward
from tinydfa.passes.undisturbed import state_kept

KEPT = ("feedback", "number", "passes", "lacking")  # of each layer, in a saved state; the last under some rules alone
WRAPPERS = re.compile(r"(^|\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?=\.|$)")


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
                f"{type(model).__name__} has none. Use a method that broadcasts (dfa, sdfa, tdfa, drtp), or say how "
                "its layers use their weights: tinydfa.register_layer."
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
                held = [key for key in KEPT if f"{name}.{key}" in self.state]
                self.state.update({f"{new}.{key}": self.state.pop(f"{name}.{key}") for key in held})
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
            if self.rule.approach is not None:  # from this weight on, B comes nearer to it
                drawn = self.state.setdefault(f"{name}.lacking", drawn.to(weight) - weight)
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


def known_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that a rule can give a B, by name; wrappers do not count in a name."""
    layers = {name: layer for name, layer in model.named_modules() if use_of(layer) is not None}
    return {WRAPPERS.sub("", name).removeprefix("."): layer for name, layer in layers.items()}


def refuse_other_layers(model: nn.Module, state: dict[str, Tensor]) -> None:
    """A saved state has a matrix for every layer, or the layers without one would go on with another."""
    saved = {key.removesuffix(".feedback"): tensor.shape for key, tensor in state.items() if key.endswith(".feedback")}
    layers = {name: (use_of(layer), layer) for name, layer in known_layers(model).items()}
    here = {name: weight_of(layer, use, name).shape for name, (use, layer) in layers.items() if use is not None}
    strange = [name for name, shape in here.items() if saved.get(name) != shape]
    if strange:
        raise DFAError(
            f"the state holds no matrix for {', '.join(strange[:6])} of these shapes: it was saved from other layers "
            f"({', '.join(list(saved)[:6])}). Change the model as it was changed then (adapters, replaced layers) "
            "before the state is loaded."
        )


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
