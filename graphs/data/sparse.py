"""Sparse matrices that multiply dense ones, forwards and backwards, and what such products need, made once.

The features of a citation graph are about 99 % zeros and its adjacency more so; both stay constant while the
model trains. Torch sorts the entries anew for every product with a transpose, which costs ten times the product.
Here the transpose is made once, when it is first needed, so a backward pass costs as much as a forward pass.

Shapes: n rows, m columns, E stored entries; a dense operand is [m, d].
"""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class Pattern:
    """The places of the entries of a sparse ``[n, m]`` matrix, and products with entries that vary.

    Where :class:`SparseMatrix` has constant entries and differentiates the dense factor alone, these are the pieces
    of an autograd function whose entries are computed, such as attention. None of them is recorded by autograd.

    Args:
        row: Row of each entry, ``[E]``, sorted.
        column: Column of each entry, ``[E]``, sorted within a row.
        shape: (n, m).
    """

    def __init__(self, row: Tensor, column: Tensor, shape: tuple[int, int]) -> None:
        self.row, self.column, self.shape = row, column, shape

    def __len__(self) -> int:
        return self.row.numel()

    @cached_property
    def pointers(self) -> Tensor:
        """Where each row begins, and the end: ``[n + 1]``."""
        counts = torch.bincount(self.row, minlength=self.shape[0])
        return torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(self.narrow.dtype)

    @cached_property
    def narrow(self) -> Tensor:
        """`column` in 32 bits where they suffice: half of what a product reads besides numbers."""
        fits = max(*self.shape, len(self)) < 2**31
        return self.column.to(torch.int32) if fits else self.column

    @cached_property
    def transposition(self) -> Tensor:
        """The order of the entries in the transpose, ``[E]``."""
        return torch.argsort(self.column * self.shape[0] + self.row)

    @cached_property
    def transposed(self) -> Pattern:
        """The places in the transpose, ``[m, n]``."""
        order = self.transposition
        return Pattern(self.column[order], self.row[order], (self.shape[1], self.shape[0]))

    def matrix(self, value: Tensor) -> Tensor:
        """A torch matrix of entries ``[E]``: in compressed rows where torch can multiply those (CUDA, CPUs with MKL),
        else in coordinates."""
        if not self.compressed(value):
            places = torch.stack([self.row, self.column])
            return torch.sparse_coo_tensor(places, value, self.shape, check_invariants=False, is_coalesced=True)
        with warnings.catch_warnings():  # torch says once that this layout is in beta
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            return torch.sparse_csr_tensor(self.pointers, self.narrow, value, self.shape, check_invariants=False)

    @staticmethod
    def compressed(value: Tensor) -> bool:
        """Whether torch can multiply compressed rows where `value` is."""
        return value.is_cuda or torch.backends.mkl.is_available()

    def add_dots(self, value: Tensor, left: Tensor, right: Tensor) -> None:
        """Add ``left @ right.T`` at these places, ``[n, d], [m, d]``, to `value`, ``[E]``, in place."""
        if self.compressed(value):
            matrix = self.matrix(value)
            torch.sparse.sampled_addmm(matrix, left, right.t(), out=matrix)
        else:
            value += (left[self.row] * right[self.column]).sum(dim=1)

    def mix(self, value: Tensor, dense: Tensor) -> Tensor:
        """Entries ``[E]`` times ``[m, d]``: ``[n, d]``. For narrow `dense` several times faster than `matrix`."""
        return F.embedding_bag(
            self.narrow, dense, self.pointers, mode="sum", per_sample_weights=value, include_last_offset=True
        )

    def mix_back(self, value: Tensor, dense: Tensor) -> Tensor:
        """The transpose of the matrix of entries ``[E]``, times ``[n, d]``: ``[m, d]``."""
        return self.transposed.mix(value.index_select(0, self.transposition), dense)

    def sum_rows(self, value: Tensor) -> Tensor:
        """The sum of each row's entries, ``[E] -> [n]``."""
        return value.new_zeros(self.shape[0]).index_add_(0, self.row, value)


class SparseMatrix:
    """A sparse ``[n, m]`` matrix with constant entries; ``matrix @ dense`` is differentiable in `dense`.

    Args:
        row: Row of each entry, ``[E]``, integers in 0..n-1.
        column: Column of each entry, ``[E]``, integers in 0..m-1. Entries at the same place add up.
        value: Entries, ``[E]``, floating point.
        shape: (n, m).

    Example:
        >>> matrix = SparseMatrix(torch.tensor([0, 1]), torch.tensor([1, 1]), torch.tensor([2.0, 3.0]), (2, 2))
        >>> (matrix @ torch.tensor([[1.0], [10.0]])).tolist()
        [[20.0], [30.0]]
    """

    def __init__(self, row: Tensor, column: Tensor, value: Tensor, shape: tuple[int, int]) -> None:
        order = torch.argsort(row * shape[1] + column)
        self.pattern = Pattern(row[order], column[order], shape)
        self.value = value[order].contiguous()

    @classmethod
    def from_dense(cls, dense: Tensor) -> SparseMatrix:
        """The non-zero entries of a dense ``[n, m]`` matrix."""
        row, column = dense.nonzero(as_tuple=True)
        return cls(row, column, dense[row, column], (dense.size(0), dense.size(1)))

    @property
    def row(self) -> Tensor:
        """Row of each entry, ``[E]``, sorted."""
        return self.pattern.row

    @property
    def column(self) -> Tensor:
        """Column of each entry, ``[E]``, sorted within a row."""
        return self.pattern.column

    @property
    def shape(self) -> tuple[int, int]:
        """(n, m)."""
        return self.pattern.shape

    @cached_property
    def matrix(self) -> Tensor:
        """This matrix as a sparse tensor of torch."""
        return self.pattern.matrix(self.value)

    @cached_property
    def transposed(self) -> Tensor:
        """Its transpose, ``[m, n]``, as a sparse tensor of torch."""
        return self.pattern.transposed.matrix(self.value[self.pattern.transposition])

    def with_values(self, value: Tensor) -> SparseMatrix:
        """The same pattern with other entries ``[E]``, in the order of `row` and `column`."""
        other = object.__new__(SparseMatrix)
        other.pattern, other.value = self.pattern, value
        return other

    def dropout(self, p: float, training: bool) -> SparseMatrix:
        """Dropout of the entries with probability p; what dropout of the dense matrix is, for zeros stay zeros."""
        return self.with_values(F.dropout(self.value, p)) if training and p > 0 else self

    def to(self, device: torch.device | str) -> SparseMatrix:
        """The same matrix on another device."""
        return SparseMatrix(self.row.to(device), self.column.to(device), self.value.to(device), self.shape)

    def to_dense(self) -> Tensor:
        """The dense ``[n, m]`` matrix."""
        dense = self.value.new_zeros(self.shape)
        return dense.index_put_((self.row, self.column), self.value, accumulate=True)

    def __matmul__(self, dense: Tensor) -> Tensor:
        """``[n, m] @ [m, d] -> [n, d]``, with the gradient of `dense`; the entries of the matrix are constants."""
        return _Product.apply(self, dense)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sparse: SparseMatrix, dense: Tensor) -> Tensor:
        ctx.sparse = sparse
        return sparse.matrix @ dense

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        return None, ctx.sparse.transposed @ gradient.contiguous()
