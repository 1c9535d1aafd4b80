"""A constant sparse matrix that multiplies dense ones, forwards and backwards.

The features of a citation graph are about 99 % zeros and its adjacency more so; both stay constant while the
model trains. Torch sorts the entries anew for every product with a transpose, which costs ten times the product.
Here the transpose is made once, so a backward pass costs as much as a forward pass.

Shapes: n rows, m columns, E stored entries; a dense operand is [m, d].
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


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
        self.shape = shape
        self.row, self.column, self.value = row[order], column[order], value[order].contiguous()
        self._transposition = torch.argsort(self.column * shape[0] + self.row)
        self._pointers = _pointers(self.row, shape[0])
        self._pointers_transposed = _pointers(self.column[self._transposition], shape[1])
        self._row_transposed = self.row[self._transposition].contiguous()
        self._assemble()

    @classmethod
    def from_dense(cls, dense: Tensor) -> SparseMatrix:
        """The non-zero entries of a dense ``[n, m]`` matrix."""
        row, column = dense.nonzero(as_tuple=True)
        return cls(row, column, dense[row, column], (dense.size(0), dense.size(1)))

    def _assemble(self) -> None:
        n, m = self.shape
        self.matrix = _csr(self._pointers, self.column, self.value, (n, m))
        values = self.value[self._transposition]
        self.transposed = _csr(self._pointers_transposed, self._row_transposed, values, (m, n))

    def with_values(self, value: Tensor) -> SparseMatrix:
        """The same pattern with other entries ``[E]``, in the order of `row` and `column`."""
        other = object.__new__(SparseMatrix)
        other.__dict__.update(self.__dict__)
        other.value = value
        other._assemble()
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


def _pointers(row: Tensor, rows: int) -> Tensor:
    counts = torch.bincount(row, minlength=rows)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def _csr(pointers: Tensor, column: Tensor, value: Tensor, shape: tuple[int, int]) -> Tensor:
    """A torch matrix, in compressed rows where torch can multiply those (CUDA, CPUs with MKL), else in coordinates."""
    if value.is_cuda or torch.backends.mkl.is_available():
        with warnings.catch_warnings():  # torch says once that this layout is in beta
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            return torch.sparse_csr_tensor(pointers, column, value, shape, check_invariants=False)
    row = torch.repeat_interleave(torch.arange(shape[0], device=value.device), pointers.diff())
    return torch.sparse_coo_tensor(torch.stack([row, column]), value, shape, check_invariants=False, is_coalesced=True)
