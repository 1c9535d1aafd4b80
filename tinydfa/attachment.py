"""The handle on an attached model: switch its method, suspend it, save its feedback, detach it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tinydfa.dfa import DFA
from tinydfa.errors import PointError
from tinydfa.feedback import Feedback
from tinydfa.hooks import AttachedForward, HeadHook, PointHook
from tinydfa.layerwise import passes, swap, swap_back
from tinydfa.methods import Method
from tinydfa.naming import no_points
from tinydfa.points import Tape


class Attachment:
    """A method at work on a model; made by `attach`.

    Attributes:
        model: The model.
        head: The head that feeds the points (None where a layer-wise method needs no points).
        target: For `drtp`: class ids ``[B]`` (negative: no label) or rows ``[B, c]`` of the next forward pass. Taken
            by that pass, so a target is never used twice.
        loss_scale: For `sdfa`, `tdfa`, `drtp` under a gradient scaler: ``scaler.get_scale()``.
    """

    def __init__(self, model: nn.Module, feedback: Feedback) -> None:
        self.model = model
        self.head: DFA | None = None
        self.feedback = feedback
        self._no_tape = Tape(Method.BP)
        self._handles: list[RemovableHandle] = []
        self._forward: AttachedForward | None = None
        self._before: list[tuple[Any, dict[str, Any]]] = []
        self._swapped: dict[str, nn.Module] = {}
        self._walk_state: dict[str, Tensor] = {}
        self._method = Method.BP

    @property
    def tape(self) -> Tape:
        return self._no_tape if self.head is None else self.head.tape

    @property
    def method(self) -> Method:
        """The method in force; assign a method or its name to switch."""
        return self._method

    @method.setter
    def method(self, method: Method | str) -> None:
        new = Method.parse(method)
        if new.cuts and self.head is None:
            raise PointError(no_points(self.model, new))
        if self._swapped:
            swap_back(self._swapped, self._walk_state)
            self._swapped = {}
        if new.layerwise:
            with torch.inference_mode(False):
                self._swapped = swap(self.model, new, self.feedback, self._walk_state)
        self.tape.method = new
        self._method = new
        if self._forward is not None:
            self._forward = self._forward.of(new)

    @property
    def points(self) -> dict[str, int | None]:
        """The feedback points and their widths (None before the first pass)."""
        return {point.label: point.width for point in self.head.points} if self.head is not None else {}

    @property
    def target(self) -> Tensor | None:
        return self.tape.target

    @target.setter
    def target(self, target: Tensor | None) -> None:
        self.tape.target = target

    @property
    def loss_scale(self) -> float | None:
        return self.tape.loss_scale

    @loss_scale.setter
    def loss_scale(self, scale: float | None) -> None:
        self.tape.loss_scale = scale

    @contextmanager
    def backprop(self) -> Iterator[None]:
        """Inside this block the model trains by plain backpropagation."""
        method = self.method
        if method.layerwise:
            self.method = Method.BP
        try:
            with self.tape.backprop():
                yield
        finally:
            if method.layerwise:
                self.method = method

    @contextmanager
    def samples(self, index: Tensor) -> Iterator[None]:
        """Say which row of the output each row of the points belongs to: ``[rows]`` int64 (nodes of several graphs)."""
        self.tape.index = index
        try:
            yield
        finally:
            self.tape.index = None

    def detach(self) -> None:
        """Leave the model as it was before `attach`."""
        if self._swapped:
            swap_back(self._swapped, self._walk_state)
            self._swapped = {}
        for handle in self._handles:
            handle.remove()
        if self._forward is not None:
            self._forward.remove()
        self._forward = None
        vars(self.model).pop("_attachment", None)
        for thing, attributes in reversed(self._before):
            for name, value in attributes.items():
                setattr(thing, name, value)
        self._handles, self._before = [], []
        self._method = Method.BP

    def hook(self, module: nn.Module, hook: PointHook | HeadHook) -> None:
        """Set a forward hook that `detach` removes."""
        self._handles.append(module.register_forward_hook(hook))

    def enter(self, head: DFA | None) -> None:
        """Take over the model's `forward`; with a head, the error is taken at its return value."""
        self._forward = AttachedForward().take_over(self, head)
        vars(self.model)["_attachment"] = self

    def remember(self, thing: Any, *attributes: str) -> None:
        """Note what `detach` is to put back."""
        self._before.append((thing, {name: getattr(thing, name) for name in attributes}))

    def state_dict(self) -> dict[str, Any]:
        """Method, seed and feedback: what the model's own `state_dict` does not hold."""
        self._walk_state.update(passes(self._swapped))
        matrix = self.head.feedback_matrix if self.head is not None else None
        return {
            "method": str(self.method),
            "seed": self.feedback.seed,
            "feedback_matrix": None if matrix is None else matrix.clone(),
            "layerwise": {name: tensor.clone() for name, tensor in self._walk_state.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved method and its feedback, also before the model has run."""
        if self.head is not None and state["feedback_matrix"] is not None:
            self.head.feedback_matrix = state["feedback_matrix"].clone()
        self.feedback = replace(self.feedback, seed=state["seed"])
        if self.head is not None:
            self.head.feedback = self.feedback
        self.method = Method.BP  # swaps back, so that the swap below takes over what was saved
        self._walk_state = {name: tensor.clone() for name, tensor in state["layerwise"].items()}
        self.method = state["method"]

    def __repr__(self) -> str:
        points = ", ".join(f"{name} ({width})" for name, width in self.points.items())
        return f"Attachment(method={self.method}, points=[{points}])"
