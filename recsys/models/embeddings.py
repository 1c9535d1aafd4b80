"""Embeddings: one table for all fields, whose gradients reuse their memory.

The gradient of a table is as large as the table, and mostly zero, because a batch touches few rows. On a CPU,
allocating and clearing 64 MB in every step takes longer than Adam. So the memory of a used gradient is kept, and only
the touched rows are set back to zero. `recsys.optimizers` returns it to the table.

Letters: B rows of a batch, F fields, V categories of all fields, d width of an embedding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class FieldRows(nn.Module):
    """From a field's category id to a row of a table that holds all fields one after another."""

    offsets: Tensor

    def __init__(self, field_dims: Sequence[int]) -> None:
        super().__init__()
        before = torch.tensor([0, *field_dims[:-1]], dtype=torch.int64).cumsum(0)
        self.register_buffer("offsets", before, persistent=False)

    def forward(self, fields: Tensor) -> Tensor:
        """``[B, F]`` integers, each below its field's size, to ``[B, F]`` int64 below V."""
        return fields + self.offsets


class FieldTable(nn.Embedding):
    """One vector for every category of every field, ``[V, d]``.

    With `sparse`, the gradient is a sparse tensor of the rows in the batch; otherwise it is dense. The dense gradient
    is accumulated without sorting, which on a CPU is several times faster than in `F.embedding`.
    """

    def __init__(self, categories: int, width: int, sparse: bool = False) -> None:
        super().__init__(categories, width, sparse=sparse)
        self.spare: Tensor | None = None  # memory of an earlier gradient, all zeros
        self.touched: list[Tensor] = []  # rows that are in the gradient, ``[B F]`` for each backward pass

    def forward(self, rows: Tensor) -> Tensor:
        """``[B, F]`` rows to ``[B, F, d]``."""
        if self.sparse:
            return F.embedding(rows, self.weight, sparse=True)
        flat = rows.flatten()
        if torch.compiler.is_compiling():  # which plans memory itself
            selected = self.weight.index_select(0, flat)
        else:
            selected = Selected.apply(self.weight, flat, self)
        return selected.view(*rows.shape, self.embedding_dim)

    def recycle(self) -> None:
        """Set ``weight.grad`` to None, and keep the memory of the gradient for the next one.

        Other references to the gradient see it become zero, as with `Optimizer.zero_grad(set_to_none=False)`. The
        gradient must be what backward passes of this process left, or a multiple of it.
        """
        gradient, touched = self.weight.grad, self.touched
        self.weight.grad, self.touched = None, []
        if gradient is None or gradient.is_sparse:
            return
        if self.count(touched) < len(gradient):
            for rows in touched:
                gradient.index_fill_(0, rows, 0.0)
        else:
            gradient.zero_()
        self.spare = gradient

    def add_up(self, rows: Tensor, gradients: Tensor) -> Tensor:
        """The gradient of the table, ``[V, d]``, from the gradients ``[n, d]`` of some of its rows ``[n]``."""
        if self.count(self.touched) < len(self.weight):  # with more, the whole gradient is cleared
            self.touched.append(rows)
        spare, self.spare = self.spare, None
        if spare is None or (spare.dtype, spare.device) != (gradients.dtype, gradients.device):
            spare = gradients.new_zeros(self.weight.shape)
        return spare.index_add_(0, rows, gradients)

    @staticmethod
    def count(touched: list[Tensor]) -> int:
        """The number of rows, with repetitions."""
        return sum(len(rows) for rows in touched)


@contextmanager
def dense_gradients(model: nn.Module) -> Iterator[None]:
    """A context in which tables with sparse gradients have dense ones, for code that cannot handle sparse gradients."""
    tables = [module for module in model.modules() if isinstance(module, FieldTable) and module.sparse]
    for table in tables:
        table.sparse = False
    try:
        yield
    finally:
        for table in tables:
            table.sparse, table.spare, table.touched = True, None, []


class Selected(torch.autograd.Function):
    """Some rows of a table, ``[V, d], [n] -> [n, d]``; the gradient is dense."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, rows: Tensor, table: FieldTable) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.table = table
        return weight.index_select(0, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (rows,) = ctx.saved_tensors
        return ctx.table.add_up(rows, gradients[0]), None, None


class LinearTerm(nn.Module):
    """A weight for every category, summed over fields, and a bias."""

    def __init__(self, categories: int, std: float, sparse: bool) -> None:
        super().__init__()
        self.table = FieldTable(categories, 1, sparse=sparse)
        self.bias = nn.Parameter(torch.zeros(1))
        nn.init.normal_(self.table.weight, std=std)

    def forward(self, rows: Tensor) -> Tensor:
        """``[B, F] -> [B, 1]``."""
        return self.table(rows).sum(dim=1) + self.bias


def embedding_table(categories: int, width: int, sparse: bool) -> FieldTable:
    """A table of vectors, uniform with the variance ``2 / (V + d)`` of Glorot's rule, as torchfm draws it."""
    table = FieldTable(categories, width, sparse=sparse)
    nn.init.xavier_uniform_(table.weight)
    return table
