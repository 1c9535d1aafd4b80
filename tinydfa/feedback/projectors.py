"""Projectors: what may stand in the place of the feedback matrix.

A projector is any callable of an encoded error ``[B, c]`` and a number of columns D that returns ``[B, D]``. It need
not be differentiable, exact or fast: an optical device, its simulator, a matrix that is never stored.

    attach(model, "dfa", feedback=OpticalUnit(seed=3))
    attach(model, "dfa", feedback=Feedback(projector=device, scaling="none"))

Letters: B samples, c width of the error, D columns of the feedback, F the matrix that a projector amounts to.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from tinydfa.feedback.drawn import OWN, Feedback
from tinydfa.signals import ternary

PROBED = 64  # rows of F that a fingerprint looks at


@runtime_checkable
class Projector(Protocol):
    """Anything that projects. It may say ``carries_scale = False``: twice the error gives the same projection."""

    def __call__(self, encoded: Tensor, columns: int) -> Tensor:
        """``[B, c]`` to ``[B, columns]``, on the device of `encoded` or another."""
        ...


class Matrix:
    """A feedback matrix of your own, ``[c, D]``.

    Example:
        >>> Matrix(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))(torch.tensor([[1.0, 1.0]]), 2)
        tensor([[1., 3.]])
    """

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix.detach()

    def __call__(self, encoded: Tensor, columns: int) -> Tensor:
        return encoded @ self.matrix[:, :columns].to(encoded)

    def __repr__(self) -> str:
        return f"Matrix{tuple(self.matrix.shape)}"


class OpticalUnit:
    """A simulated optical processing unit (arXiv 2006.01475): a random projection of a ternary input by light.

    A mask shows one bit a pixel, so the input is made ternary and its positive and its negative part are projected in
    turn. The camera reads intensities with a noise in proportion to their size, and the two readings are subtracted.

    Args:
        seed: Of the scattering medium, a standard normal matrix.
        threshold: Errors up to this size are dark. None: the mean size over the batch.
        noise: Standard deviation of a reading, as a share of the root mean square of all readings of a call.
        noise_seed: Of the noise.
    """

    carries_scale = False

    def __init__(self, seed: int = 0, threshold: float | None = None, noise: float = 0.0, noise_seed: int = 0) -> None:
        if noise < 0:
            raise ValueError(f"noise is a standard deviation, at least 0; got {noise}.")
        self.seed, self.threshold, self.noise = seed, threshold, noise
        self._medium = Feedback(distribution="gaussian", seed=seed)
        self._generator = torch.Generator().manual_seed(noise_seed ^ OWN)
        self._matrix: Tensor | None = None

    def __call__(self, encoded: Tensor, columns: int) -> Tensor:
        shown = ternary(encoded, self.threshold)
        matrix = self._drawn(shown.shape[1], columns).to(shown)
        return self._read(shown.clamp_min(0) @ matrix) - self._read(shown.clamp_max(0).neg() @ matrix)

    def _read(self, light: Tensor) -> Tensor:
        if self.noise == 0:
            return light
        drawn = torch.randn(light.shape, generator=self._generator).to(light)
        return light + self.noise * light.square().mean().sqrt() * drawn

    def _drawn(self, rows: int, columns: int) -> Tensor:
        if self._matrix is None or self._matrix.shape != (rows, columns):
            self._matrix = self._medium.draw(rows, columns)
        return self._matrix

    def __repr__(self) -> str:
        return f"OpticalUnit(seed={self.seed}, threshold={self.threshold}, noise={self.noise})"


class NeverStored:
    """Uniform feedback in [-1, 1) whose entries are computed from their place, a block of columns at a time.

    An entry is a hash of the seed, its row and its column, in whole numbers, so that it is the same on every device
    and in every process. Memory is one block ``[c, block]`` instead of ``[c, D]``; the hash is paid for in every pass.

    Args:
        seed: Names the feedback.
        block: Columns that are made at once. None: as many as have 131,072 entries, which takes 3 MiB.

    Example:
        >>> NeverStored(seed=1, block=2)(torch.eye(2), 3).shape
        torch.Size([2, 3])
    """

    def __init__(self, seed: int = 0, block: int | None = None) -> None:
        if block is not None and block < 1:
            raise ValueError(f"block is a number of columns, at least 1; got {block}.")
        self.seed, self.block = seed, block

    def __call__(self, encoded: Tensor, columns: int) -> Tensor:
        projected = encoded.new_empty(encoded.shape[0], columns)
        block = self.block or max(ENTRIES // encoded.shape[1], 1)
        for start in range(0, columns, block):
            end = min(start + block, columns)
            torch.mm(encoded, self.columns(encoded.shape[1], start, end, encoded), out=projected[:, start:end])
        return projected

    def columns(self, rows: int, start: int, end: int, like: Tensor) -> Tensor:
        """Columns `start` to `end` of F, ``[rows, end - start]``, in the type and place of `like`."""
        row = torch.arange(rows, device=like.device)[:, None]
        column = torch.arange(start, end, device=like.device)
        bits = mixed(mixed(row + (self.seed & MASK)) ^ column)
        return bits.to(like.dtype).mul_(2.0**-31).sub_(1)

    def __repr__(self) -> str:
        return f"NeverStored(seed={self.seed}, block={self.block})"


MASK = 0xFFFF_FFFF
ENTRIES = 131_072  # of a block


def mixed(numbers: Tensor) -> Tensor:
    """A hash of 32 bits of int64 numbers: every bit of the result depends on all bits of the number.

    The multipliers are those of the finaliser of MurmurHash3 (Appleby, public domain).
    """
    numbers = numbers & MASK
    numbers.bitwise_xor_(numbers >> 16).mul_(0x85EB_CA6B).bitwise_and_(MASK)
    numbers.bitwise_xor_(numbers >> 13).mul_(0xC2B2_AE35).bitwise_and_(MASK)
    return numbers.bitwise_xor_(numbers >> 16)


def effective(projector: Projector, rows: int, columns: int, device: torch.device | str = "cpu") -> Tensor:
    """The matrix ``[rows, columns]`` that a projector amounts to, by unit vectors, one at a time: a row for each."""
    units = torch.eye(rows, device=device)
    return torch.cat([projector(unit[None], columns).to(units) for unit in units])


def fingerprint(projector: Projector, rows: int, columns: int) -> Tensor:
    """Some rows of a projector's effective matrix, by which a saved state knows it again: ``[<= 64, columns]``."""
    probed = torch.linspace(0, rows - 1, min(rows, PROBED)).long()
    units = torch.nn.functional.one_hot(probed, rows).float()
    return torch.cat([projector(unit[None], columns).float().cpu() for unit in units])
