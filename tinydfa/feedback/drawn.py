"""Feedback matrices: which random numbers carry the output error to the hidden layers.

A matrix is drawn on the CPU from a generator of its own, so that a seed names it: it is the same on every rank and
device, and drawing it does not move the global generator. Drawing is an operator that `torch.compile` does not look
into, so a model may meet its feedback for the first time inside a compiled forward pass.

Letters: c width of the error, D the largest width of a point, d the width of one point.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tinydfa.feedback.room import refuse_too_large
from tinydfa.names import Choice

# Seeds of feedback differ from the same numbers given to `torch.manual_seed` in these bits. Without them a model built
# under the seed of its feedback would have the feedback's own numbers in its first weights.
OWN = 0x7D0FA_5EED_F00D


def generator_named(*words: str | int) -> torch.Generator:
    """Random numbers that words name, the same on every machine.

    Example:
        >>> one, other = generator_named("rows", 0), generator_named("rows", 0)
        >>> torch.equal(torch.rand(3, generator=one), torch.rand(3, generator=other))
        True
    """
    digest = hashlib.sha256(" ".join(map(str, words)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


class Distribution(Choice):
    """What the entries of a feedback matrix are drawn from; all have mean 0."""

    UNIFORM = "uniform"  # [-1, 1), as in the release of arXiv 2006.12878
    GAUSSIAN = "gaussian"  # standard normal, as in arXiv 1906.04554
    SIGN = "sign"  # -1 or 1
    SPARSE = "sparse"  # standard normal, kept with probability `density`, else 0 (Crafton 2019)


class Scaling(Choice):
    """What the projection is multiplied by."""

    LARGEST = "largest"  # 1 / sqrt(D), the same for every point: arXiv 2006.12878
    POINT = "point"  # 1 / sqrt(c d), each point by its own width: arXiv 1906.04554
    NONE = "none"


@dataclass(frozen=True, kw_only=True)
class Feedback:
    """All that decides a feedback matrix and how it is used, apart from its size.

    Args:
        distribution: See `Distribution`.
        scaling: See `Scaling`.
        shared: One matrix ``[c, D]`` of which a point of width d reads the first d columns; else every point has
            columns of its own.
        density: Fraction of the entries of a `sparse` matrix that are not zero.
        error_sum: Multiply the error by the number of samples, which turns a loss averaged over the batch into one
            that is summed, for the hidden layers alone (arXiv 1906.04554).
        check_finite: Look at every error before it is projected and refuse one that is not finite; so, too, class ids
            (`drtp`, `les`) and the index of a point that are out of range. On a GPU each look waits for the device.
        seed: Names the random numbers.
        projector: What projects in place of a matrix that is drawn, see `tinydfa.projectors`; distribution, density
            and seed then have no meaning.
    """

    distribution: Distribution | str = Distribution.UNIFORM
    scaling: Scaling | str = Scaling.LARGEST
    shared: bool = True
    density: float = 0.1
    error_sum: bool = False
    check_finite: bool = True
    seed: int = 0
    projector: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "distribution", Distribution.parse(self.distribution))
        object.__setattr__(self, "scaling", Scaling.parse(self.scaling))
        if not 0.0 < self.density <= 1.0:
            raise ValueError(f"density is the fraction of entries kept, above 0 and at most 1; got {self.density}.")
        if self.projector is not None:
            self._refuse_what_a_projector_decides()

    def _refuse_what_a_projector_decides(self) -> None:
        if not callable(self.projector):
            raise TypeError(
                f"a projector is a callable of an error [B, c] and a number of columns; got {self.projector!r}."
            )
        if self.distribution is not Distribution.UNIFORM or self.density != 0.1 or self.seed != 0:
            raise ValueError(
                "distribution, density and seed describe a matrix that is drawn, and a projector stands in its place. "
                "Leave them out, or give them to the projector."
            )

    def draw(self, rows: int, columns: int) -> Tensor:
        """The matrix ``[rows, columns]`` of this seed: float32, on the CPU.

        Example:
            >>> Feedback(distribution="sign", seed=3).draw(2, 3).abs()
            tensor([[1., 1., 1.],
                    [1., 1., 1.]])
        """
        return _draw(self.seed, rows, columns, str(self.distribution), self.density)

    @property
    def options(self) -> dict[str, Any]:
        """What a matrix is drawn and scaled by, apart from its seed, as plain values."""
        options = {"distribution": str(self.distribution), "scaling": str(self.scaling)}
        return options | {"shared": self.shared, "density": self.density, "error_sum": self.error_sum}

    def scale(self, outputs: int, largest: int, width: int) -> float:
        """The factor on the projection to a point of width `width`."""
        if self.scaling is Scaling.LARGEST:
            return float(largest) ** -0.5
        if self.scaling is Scaling.POINT:
            return float(outputs * width) ** -0.5
        return 1.0


@torch.library.custom_op("tinydfa::draw", mutates_args=())
def _draw(seed: int, rows: int, columns: int, distribution: str, density: float) -> Tensor:
    refuse_too_large(rows, columns, distribution)
    generator = torch.Generator().manual_seed(seed ^ OWN)
    cpu = torch.device("cpu")  # also where another device is the default
    if distribution == Distribution.UNIFORM.value:
        return torch.rand(rows, columns, generator=generator, device=cpu).mul_(2).sub_(1)
    if distribution == Distribution.SIGN.value:
        return torch.randint(0, 2, (rows, columns), generator=generator, device=cpu).mul_(2).sub_(1).float()
    normal = torch.randn(rows, columns, generator=generator, device=cpu)
    if distribution == Distribution.SPARSE.value:
        normal *= torch.rand(rows, columns, generator=generator, device=cpu) < density
    return normal


@_draw.register_fake
def _(seed: int, rows: int, columns: int, distribution: str, density: float) -> Tensor:
    return torch.empty(rows, columns, device="cpu")
