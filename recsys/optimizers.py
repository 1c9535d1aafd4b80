"""Adam for a click model: on everything, or on tables row by row."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Optimizer

from harness.processes import current
from recsys.models.embeddings import FieldTable


class TableAdam(torch.optim.Adam):
    """Adam that gives the memory of a table's gradient back to the table, see `recsys.models.embeddings`."""

    def __init__(self, parameters: list[nn.Parameter], tables: list[FieldTable], lr: float, fused: bool) -> None:
        super().__init__(parameters, lr=lr, fused=fused)
        self.tables = tables

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As `torch.optim.Optimizer.zero_grad`."""
        if set_to_none and current().size == 1:  # among several, gradients hold rows of the others' batches
            for table in self.tables:
                table.recycle()
        super().zero_grad(set_to_none)


def make_optimizers(model: nn.Module, lr: float) -> list[Optimizer]:
    """Adam for the parameters with dense gradients; SparseAdam for tables with sparse ones.

    SparseAdam touches the rows of a batch alone. A row that is absent keeps its moments where Adam would let them
    decay and move it on, so the two train slightly different models.
    """
    tables = [module for module in model.modules() if isinstance(module, FieldTable)]
    sparse = [table.weight for table in tables if table.sparse]
    known = {id(weight) for weight in sparse}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in known]
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in rest)
    dense = [table for table in tables if not table.sparse]
    optimizers: list[Optimizer] = [TableAdam(rest, dense, lr=lr, fused=fused)]
    if sparse:
        optimizers.append(torch.optim.SparseAdam(sparse, lr=lr))
    return optimizers


def clip_norm(parameters: Iterable[nn.Parameter], limit: float) -> None:
    """Scale all gradients down together if their norm exceeds `limit`, as `torch.nn.utils.clip_grad_norm_`.

    That function does not know sparse gradients. Of one, the rows that are there count, each added up first.
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
