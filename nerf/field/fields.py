"""A scene as two networks, and how it is looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from harness.precision import Precision
from nerf.field.network import Architecture, Network

Occupied = Callable[[Tensor], Tensor]  # places [..., 3] to whether anything can be there [...]


@dataclass(frozen=True, kw_only=True)
class Rendering:
    """How fields are looked at."""

    samples_coarse: int = 64
    samples_fine: int = 128  # more, where the coarse network saw something; 0: there is no fine network
    white_background: bool = True  # else black
    density: Literal["relu", "softplus"] = "relu"  # from the network's output to a density, see `nerf.field.volume`
    noise: float = 0.0  # deviation of what is added to densities before the ReLU, in training
    precision: Precision = "fp32"  # bf16: the networks' products are of numbers rounded to bfloat16
    dual: bool = False  # the picture is by the mean of both networks' outputs ("NeRF-Dual" of arXiv 2006.12878)


class Fields(nn.Module):
    """The coarse network, which finds out where something is, and the fine one, which draws it.

    Attributes:
        coarse: A `Network`.
        fine: Another, or None.
        rendering: How to look at them.
        occupied: Places where it says no are taken as empty, and no network is asked about them; None: ask everywhere.
    """

    def __init__(self, architecture: Architecture, rendering: Rendering) -> None:
        super().__init__()
        self.rendering = rendering
        self.occupied: Occupied | None = None
        self.coarse = Network(architecture)
        self.fine = Network(architecture) if rendering.samples_fine else None

    def networks(self) -> dict[str, Network]:
        """The networks there are, by name."""
        return {"coarse": self.coarse} | ({} if self.fine is None else {"fine": self.fine})
