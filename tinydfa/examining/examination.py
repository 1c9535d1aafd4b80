"""One model, one batch, and the ways its gradients can be taken without leaving a trace."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tinydfa.attaching.attachment import Attachment
from tinydfa.examining.gradients import carries_activations, gradients_of, leaves, upstream
from tinydfa.layerwise.kept_weights import found_in_a_pass
from tinydfa.passes.forward_pass import Link
from tinydfa.passes.undisturbed import state_kept
from tinydfa.rules import Shallow
from tinydfa.surroundings.sharded import gathered, is_sharded

Gradients = dict[str, Tensor | None]
LossFn = Callable[[nn.Module, Any], Tensor]


class Around(NamedTuple):
    """What backpropagation still reaches when the head feeds nothing."""

    gradients: Gradients
    leaking: set[str]  # parameters below a point that the loss reaches by a path around it
    crossed: tuple[str, ...]  # the points that such paths lead around
    shared: tuple[str, ...]  # parameters below a point that a layer above the points uses as well


class Examination:
    """One model, one batch, and the ways its gradients can be taken without leaving a trace."""

    def __init__(self, model: nn.Module, batch: Any, loss_fn: LossFn, link: Link) -> None:
        self.model, self.batch, self.loss_fn, self.link = model, batch, loss_fn, link
        self.sharded = is_sharded(model)
        self.trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        norms: list[bool] = []  # as they run: whether each lies below the place where the error is taken
        with ExitStack() as hooks, link.observed() as look, state_kept(model), torch.no_grad(), link.backprop():
            for norm in filter(normalises_rows, model.modules()):
                hooks.callback(norm.register_forward_hook(lambda *_: norms.append(not look.at_head)).remove)
            loss_fn(model, batch)
            at_output = [point for point, value in look.seen if look.is_output(value)]
        self.points = list(dict.fromkeys(point for point, _ in look.seen))
        self.at_output = tuple(dict.fromkeys(point.label for point in at_output))
        self.norm_below_error = norms[-1] if norms else None  # of the last norm; None if none runs

    def gradients(self, runner: nn.Module | None = None) -> Gradients:
        with state_kept(self.model), self.link.unlearning(), torch.enable_grad():
            loss = self.loss_fn(self.model if runner is None else runner, self.batch)
            return gradients_of(loss, self.trained, self.sharded)

    def below_points(self) -> set[str]:
        """Parameters that some point depends on; to be called while nothing is cut."""
        with state_kept(self.model), self.link.observed() as look, torch.enable_grad():
            self.loss_fn(self.model, self.batch)
            inner = [value for _, value in look.seen if not look.is_output(value)]  # a point there feeds nothing
            values = [value.float().sum() for value in inner if value.requires_grad]
            found = gradients_of(torch.stack(values).sum(), self.trained, self.sharded) if values else {}
        return {name for name, gradient in found.items() if gradient is not None}

    def kept_weights(self) -> list[str]:
        """The modules that the signal of a layer-wise rule passes by their own weights."""
        with found_in_a_pass(self.model) as names, state_kept(self.model), torch.enable_grad():
            self.loss_fn(self.model, self.batch)
        return names

    def input_gradients(self, attachment: Attachment | None) -> tuple[int, int]:
        """How many layers compute the gradient of their input: by backpropagation, and by the method."""
        with attachment.backprop() if attachment is not None else self.link.backprop():
            before = self._asked_for()
        return before, self._asked_for()

    def _asked_for(self) -> int:
        asked: set[nn.Module] = set()

        def look(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            if any(isinstance(value, Tensor) and value.requires_grad for value in inputs):
                asked.add(module)

        layers = [module for module in self.model.modules() if multiplies(module)]
        handles = [layer.register_forward_pre_hook(look) for layer in layers]
        try:
            with state_kept(self.model), self.link.unlearning(), torch.enable_grad():
                self.loss_fn(self.model, self.batch)
        finally:
            for handle in handles:
                handle.remove()
        return len(asked)

    def around_points(self) -> Around:
        """What is left of the gradients when the head feeds nothing, and how it gets there."""
        rule = self.link.rule
        self.link.change(rule=Shallow())
        try:
            with state_kept(self.model), self.link.observed() as look, torch.enable_grad():
                loss = self.loss_fn(self.model, self.batch)
                seen = [(point.label, value.grad_fn) for point, value in look.seen]
                return self._around(loss, [place for place in seen if place[0] not in self.at_output])
        finally:
            self.link.change(rule=rule)

    def _around(self, loss: Tensor, points: list[tuple[str, Any]]) -> Around:
        """From the graph of a pass whose points are cut and fed by nobody.

        A path around a point shares a node with what is below the point. A weight that is used on both sides, as a
        table of words is that is also the output layer, shares none.
        """
        reached = upstream([loss.grad_fn])
        below = {label: upstream([node]) for label, node in points}
        common = {label: [n for n in nodes & reached if carries_activations(n)] for label, nodes in below.items()}
        leaking = leaves(upstream([node for nodes in common.values() for node in nodes]))
        under = leaves(node for nodes in below.values() for node in nodes)
        gradients = gradients_of(loss, self.trained, self.sharded)
        alive = {name for name, gradient in gradients.items() if gradient is not None and bool(gradient.any())}
        names = {id(parameter): name for name, parameter in self.trained.items() if name in alive}
        names |= {key: names[id(p)] for key, p in gathered(self.model).items() if id(p) in names}
        return Around(
            gradients,
            {names[key] for key in leaking if key in names},
            tuple(label for label, nodes in common.items() if nodes),
            tuple(names[key] for key in names if key in under and key not in leaking),
        )


def multiplies(module: nn.Module) -> bool:
    """Whether a module multiplies its input by a matrix of weights."""
    matrices = any(p.dim() > 1 for p in module.parameters(recurse=False))
    return matrices and not isinstance(module, nn.Embedding | nn.EmbeddingBag)


def normalises_rows(module: nn.Module) -> bool:
    """Whether a module divides each row by what it finds in that row, as a layer norm does."""
    return type(module).__name__.endswith(("LayerNorm", "RMSNorm"))
