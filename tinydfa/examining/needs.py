"""What a training step keeps for its backward pass, block by block, found out by a forward pass that keeps nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tinydfa.attaching.attachment import attachment_of
from tinydfa.errors import DFAError
from tinydfa.memory.tangles import Tangles, Weight, address
from tinydfa.passes.forward_pass import Link, Rows
from tinydfa.passes.undisturbed import state_kept


@dataclass(frozen=True)
class Needs:
    """Bytes that a step keeps for its backward pass; weights, gradients and the optimiser's state are not in it.

    Attributes:
        blocks: By feedback point, what the graph below it keeps.
        top: What the graph between the last point and the loss keeps.
        largest: What the largest group of blocks keeps; mostly a block is a group by itself (`tinydfa.tangles`).
    """

    blocks: dict[str, int] = field(default_factory=dict)
    top: int = 0
    largest: int = 0

    @property
    def everything(self) -> int:
        """Without ``memory=``."""
        return sum(self.blocks.values()) + self.top

    @property
    def one_block(self) -> int:
        """Under ``memory="replay"``."""
        return self.largest + self.top

    def __str__(self) -> str:
        rows = [*self.blocks.items(), ("above the points", self.top), ("a step keeps", self.everything)]
        rows += [('with memory="replay"', self.one_block)]
        width = max([len(name) for name, _ in rows])
        return "\n".join([f"{name:<{width}}  {size / 2**20:10.2f} MiB" for name, size in rows])


class Weigher:
    """A forward pass that weighs the graph below every point, and lets go of it."""

    def __init__(self, model: nn.Module) -> None:
        self.tangles = Tangles([])
        self.apart = {address(parameter) for parameter in model.parameters()}
        self.below = -1
        self.sizes: dict[str, int] = {}
        self.each: list[int] = []

    def at_point(self, point: Any, input: Tensor, rows: Rows | None) -> Tensor:
        self.each.append(self.weighed(input))
        self.sizes[point.label] = self.sizes.get(point.label, 0) + self.each[-1]
        return input.detach()

    def join(self, head: Any, outputs: list[Tensor]) -> list[Tensor]:
        return outputs

    def weighed(self, value: Tensor) -> int:
        weight = Weight(self.apart, self.below)
        self.tangles.add([value], weight)
        self.below = weight.counted(value)
        return weight.bytes

    def needs(self, loss: Tensor) -> Needs:
        """What is found in all, with what lies between the last point and the loss."""
        together: dict[int, int] = {}
        for group, size in zip(self.tangles.groups(), self.each, strict=True):
            together[group] = together.get(group, 0) + size
        return Needs(self.sizes, self.weighed(loss), max(together.values(), default=0))


class Weighing:
    """Stands in for the choice of what a pass keeps."""

    def __init__(self) -> None:
        self.weigher: Weigher | None = None

    @torch.compiler.disable
    def begin(self, link: Link, model: nn.Module, forward: Any, args: Any, kwargs: Any) -> None:
        if self.weigher is None:
            self.weigher = Weigher(model)
        link.current.taker = self.weigher


def memory_needs(model: nn.Module, batch: Any, loss_fn: Callable[[nn.Module, Any], Tensor]) -> Needs:
    """What a training step on `batch` keeps for its backward pass, before it is run.

    Args:
        model: An attached model, under a rule that sends its signal straight to the points.
        batch: Handed to `loss_fn` as it is.
        loss_fn: ``loss_fn(model, batch)`` calls the model and returns the loss.

    Raises:
        DFAError: `model` is not attached, or its rule cuts no graph.
    """
    attachment = attachment_of(model)
    if attachment is None or not attachment.rule.cuts:
        raise DFAError("memory is needed block by block where feedback points cut the graph. Attach a rule that does.")
    link = attachment.link
    before, link.memory = link.memory, Weighing()
    try:
        with state_kept(attachment.model), link.unlearning(), torch.enable_grad():
            loss = loss_fn(model, batch)
            weigher = link.memory.weigher
            return Needs() if weigher is None else weigher.needs(loss)
    finally:
        link.memory = before
