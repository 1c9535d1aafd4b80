"""A radiance field: its coarse and its fine network, and how it is rendered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from harness.precision import Precision
from nerf.field.network import Architecture, Network

Occupied = Callable[[Tensor], Tensor]  # points [..., 3] to whether they may be occupied [...]


@dataclass(frozen=True, kw_only=True)
class Rendering:
    """How a field is rendered."""

    samples_coarse: int = 64
    samples_fine: int = 128  # additional ones, where the coarse network found density; 0: no fine network
    white_background: bool = True  # else black
    density: Literal["relu", "softplus"] = "relu"  # from the network's output to a density, see `nerf.field.volume`
    noise: float = 0.0  # standard deviation of noise added before the ReLU, in training
    precision: Precision = "fp32"  # bf16: the networks' products are of numbers rounded to bfloat16
    dual: bool = False  # render the mean of both networks' outputs ("NeRF-Dual" of arXiv 2006.12878)


class Fields(nn.Module):
    """The coarse network, which shows where a ray meets the scene, and the fine one, which is rendered.

    Attributes:
        coarse: A `Network`.
        fine: Another, or None.
        rendering: How they are rendered.
        occupied: Whether points may be occupied; the networks are not evaluated at others. None: evaluated everywhere.
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
