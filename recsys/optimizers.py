"""Adam for a click model: on everything, or on tables row by row."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Optimizer

from recsys.layers import FieldTable


def make_optimizers(model: nn.Module, lr: float) -> list[Optimizer]:
    """Adam for the parameters with dense gradients; SparseAdam for tables with sparse ones.

    SparseAdam touches the rows of a batch alone. A row that is absent keeps its moments where Adam would let them
    decay and move it on, so the two train slightly different models.
    """
    tables = [module.weight for module in model.modules() if isinstance(module, FieldTable) and module.sparse]
    known = {id(table) for table in tables}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in known]
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in rest)
    optimizers: list[Optimizer] = [torch.optim.Adam(rest, lr=lr, fused=fused)]
    if tables:
        optimizers.append(torch.optim.SparseAdam(tables, lr=lr))
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
