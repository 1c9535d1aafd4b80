"""The 2020 package's `AlignmentMeasurement`, for scripts that use it. New code calls `measure_alignment`.

It compares, per leaf module and sample, the gradients at the module's output, and returns tensors and ``[mean, std]``
keyed by module. The thresholds are the 2020 package's: entries up to `sensitivity` count as zero, and a sample whose
gradients vanish counts as aligned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tinydfa.errors import DFAError
from tinydfa.head import Head
from tinydfa.passes.undisturbed import state_kept
from tinydfa.points import DFALayer


class AlignmentMeasurement:
    """Cosines between DFA's and BP's gradients at the output of every leaf module.

    Args:
        model: A model with a `DFA` head.
        bp_device: Device on which the BP gradients are computed.
        sensitivity: Gradient entries of at most this size count as zero.
        bp_model: A second copy of the model to run BP on. None: `model` itself, with its points let through.
    """

    def __init__(
        self,
        model: nn.Module,
        bp_device: torch.device | str,
        sensitivity: float = 1e-8,
        bp_model: nn.Module | None = None,
    ) -> None:
        self.dfa_model = model
        self.bp_device = torch.device(bp_device)
        self.bp_model = model if bp_model is None else bp_model
        self.sensitivity = sensitivity
        self.head = head_of(self.bp_model)

    def measure_alignment(
        self, input: Tensor, target: Tensor, loss_function: Callable[[Tensor, Tensor], Tensor]
    ) -> tuple[dict[nn.Module, Tensor], dict[nn.Module, list[float]]]:
        """
        Returns:
            ``angles[module]``, the cosine of every sample, and ``alignments[module]``, ``[mean, std]``, for every leaf
            module of the DFA model that has gradients, feedback points excepted.
        """
        state = torch.get_rng_state()
        dfa = output_gradients(self.dfa_model, input, target, loss_function)
        torch.set_rng_state(state)
        home = next(self.dfa_model.parameters()).device
        if self.bp_model is not self.dfa_model:
            self.bp_model.load_state_dict(self.dfa_model.state_dict())
        self.bp_model.to(self.bp_device)
        try:
            with self.head.link.backprop(), state_kept(self.bp_model):
                bp = output_gradients(self.bp_model, input.to(self.bp_device), target.to(self.bp_device), loss_function)
        finally:
            if self.bp_model is self.dfa_model:
                self.dfa_model.to(home)
        angles = {}
        for ours, theirs in zip(leaves(self.dfa_model), leaves(self.bp_model), strict=True):
            if ours in dfa and theirs in bp:
                angles[ours] = self._cosine(dfa[ours], bp[theirs].to(dfa[ours].device))
        return angles, {module: [float(angle.mean()), float(angle.std())] for module, angle in angles.items()}

    def _cosine(self, ours: Tensor, truth: Tensor) -> Tensor:
        ours, truth = (self._conditioned(gradient) for gradient in (ours, truth))
        cosine = nn.functional.cosine_similarity(truth, ours, dim=1, eps=self.sensitivity)
        return torch.where(ours.sum(dim=1) + truth.sum(dim=1) == 0, torch.ones_like(cosine), cosine)

    def _conditioned(self, gradient: Tensor) -> Tensor:
        kept = torch.where(gradient.abs() <= self.sensitivity, torch.zeros_like(gradient), gradient)
        return kept.reshape(kept.shape[0], -1) / self.sensitivity


def head_of(model: nn.Module) -> Head:
    heads = [module for module in model.modules() if isinstance(module, Head)]
    if not heads:
        raise DFAError(
            f"{type(model).__name__} has no DFA head to measure. Place tinydfa.DFA([...]) at its output, or use "
            "tinydfa.measure_alignment on an attached model."
        )
    return heads[-1]


def leaves(model: nn.Module) -> list[nn.Module]:
    return [m for m in model.modules() if not list(m.children()) and not isinstance(m, DFALayer)]


def output_gradients(
    model: nn.Module, input: Tensor, target: Tensor, loss_function: Callable[[Tensor, Tensor], Tensor]
) -> dict[nn.Module, Tensor]:
    """Gradients of the loss at the outputs of the leaf modules that have one."""
    with outputs_kept(model) as outputs:
        loss = loss_function(model(input), target)
    found = torch.autograd.grad(loss, list(outputs.values()), allow_unused=True)
    return {module: gradient for module, gradient in zip(outputs, found, strict=True) if gradient is not None}


@contextmanager
def outputs_kept(model: nn.Module) -> Iterator[dict[nn.Module, Tensor]]:
    outputs: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            outputs[module] = output

    handles = [module.register_forward_hook(keep) for module in leaves(model)]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
