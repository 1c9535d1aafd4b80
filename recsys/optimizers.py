"""Adam for a click model: dense, or sparse on the embedding tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from harness.processes import current
from recsys.models.embeddings import FieldTable


class TableAdam(torch.optim.Adam):
    """Adam that returns the memory of a table's gradient to the table, see `recsys.models.embeddings`."""

    def __init__(self, parameters: list[nn.Parameter], tables: list[FieldTable], lr: float, fused: bool) -> None:
        super().__init__(parameters, lr=lr, fused=fused)
        self.tables = tables

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As `torch.optim.Optimizer.zero_grad`."""
        if (
            set_to_none and current().size == 1
        ):  # with several, gradients also hold rows of the other processes' batches
            for table in self.tables:
                table.recycle()
        super().zero_grad(set_to_none)


class Optimizers(list[Optimizer]):
    """Several optimizers that step together; a checkpoint holds the list of their states."""

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for optimizer in self:
            optimizer.zero_grad()

    def step(self) -> None:
        """One step of each."""
        for optimizer in self:
            optimizer.step()

    def state_dict(self) -> list[dict[str, Any]]:
        """The state of each, in order."""
        return [optimizer.state_dict() for optimizer in self]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Restore what `state_dict` returned."""
        for optimizer, state in zip(self, states, strict=True):
            optimizer.load_state_dict(state)


def make_optimizers(model: nn.Module, lr: float) -> Optimizers:
    """Adam for the parameters with dense gradients; SparseAdam for tables with sparse ones.

    SparseAdam updates only the rows of a batch. An absent row keeps its moments, where Adam lets them decay and still
    moves the row, so the two train slightly different models.
    """
    tables = [module for module in model.modules() if isinstance(module, FieldTable)]
    sparse = [table.weight for table in tables if table.sparse]
    known = {id(weight) for weight in sparse}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in known]
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in rest)
    dense = [table for table in tables if not table.sparse]
    optimizers = Optimizers([TableAdam(rest, dense, lr=lr, fused=fused)])
    if sparse:
        optimizers.append(torch.optim.SparseAdam(sparse, lr=lr))
    return optimizers


def clip_norm(parameters: Iterable[nn.Parameter], limit: float) -> None:
    """Scale all gradients down if their total norm exceeds `limit`, as `torch.nn.utils.clip_grad_norm_` does.

    That function does not support sparse gradients. Here they are coalesced first.
    """
    values = []
    for parameter in parameters:
        if parameter.grad is None:
            continue
        if parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()
            values.append(parameter.grad._values())
        else:
            values.append(parameter.grad)
    factor = limit / (torch.nn.utils.get_total_norm(values) + 1e-6)
    torch._foreach_mul_(values, factor.clamp(max=1.0))
