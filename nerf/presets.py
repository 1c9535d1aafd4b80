"""The settings that decide a run's numbers, and the named presets.

Published settings (code release of arXiv 2006.12878, `config/*.yml`, and NeRF, arXiv 2003.08934). Two things about
them are easily missed:

- The configurations of the release say 8 x 256, but its training script never passes the depth on, so the released
  networks are 4 layers of 128 units; `synthetic_dfa` and `real_dfa` are those. What the configurations say is named
  `..._8x256`.
- The widths 425 and 512 of the larger configurations are those of the fine network, and the script takes them for both.

Names: ``<data>_<method>[_<size>]``; `small_...` and `debug_...` are ours, for a CPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from harness.config import Method as MethodOption
from harness.errors import UserError
from harness.methods import named, rule_of
from harness.precision import Precision
from harness.presets import named_preset
from nerf.data.images import Background
from nerf.field.fields import Rendering
from nerf.field.network import Architecture
from tinydfa import Method


@dataclass(frozen=True, kw_only=True)
class Preset:
    """All that decides a number. Its fields are options; the scene, paths and devices are those of the command."""

    method: MethodOption
    depth: int = 4
    """Hidden layers of the trunk."""
    width: int = 128
    """Units of a hidden layer."""
    skip_every: int = 4
    """The position joins the trunk again after this many layers."""
    position_frequencies: int = 10
    """Frequencies in the encoding of a position."""
    view_frequencies: int = 4
    """Frequencies in the encoding of a viewing direction."""
    views: bool = True
    """Whether the colour depends on the viewing direction."""
    error_at: Literal["outputs", "trunk"] = "outputs"
    """Take the error at the four outputs, as published, or at the top of the trunk, as wide as a hidden layer."""
    samples_coarse: int = 64
    """Samples a ray for the coarse network."""
    samples_fine: int = 128
    """More samples a ray, for the fine network; 0: there is none."""
    density: Literal["relu", "softplus"] = "relu"
    """From the network's output to a density: relu, as published, or softplus, which always has a gradient."""
    noise: float = 0.0
    """Standard deviation of the noise that is added to densities in training."""
    rays: int = 1024
    """Rays a step, over all processes."""
    lr: float = 5e-4
    """Adam's learning rate at the first step."""
    decay: float = 1.0
    """The learning rate falls exponentially, to a tenth within this many times --steps."""
    steps: int = 500_000
    """Optimiser steps; the learning rate's decay stretches with them."""
    size: int | None = None
    """Width of the pictures in pixels; they are averaged down to it. As stored if None."""
    test_views: int | None = None
    """Test views that are scored at the end, evenly chosen; all if None."""
    val_views: int | None = None
    """Validation views that are scored at the end, as val_psnr: of transforms_val.json if the scene has it, else held
    out of its training views."""
    precision: Precision = "fp32"
    """bf16: products of numbers rounded to bfloat16."""
    skip_empty: bool = False
    """Do not evaluate the networks where the scene was found to be empty."""
    near: float | None = None
    """Where rays begin, in the units of the cameras' file; by the cameras if None."""
    far: float | None = None
    """Where rays end."""
    background: Background | None = None
    """What is behind the scene; white if None and the pictures have an alpha channel, else black."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "method", named(self.method))
        positive = ("depth", "width", "skip_every", "samples_coarse", "rays", "lr", "decay", "steps")
        for name in (*positive, "size", "test_views", "val_views", "near", "far"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{name} is {getattr(self, name)}; it must be above 0, and finite.")
        for name in ("samples_fine", "noise", "position_frequencies", "view_frequencies"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} is {getattr(self, name)}; it must not be negative.")
        if self.near is not None and self.far is not None and self.near >= self.far:
            raise UserError(f"near is {self.near} and far is {self.far}; near must be less.")
        if self.samples_fine and self.samples_coarse < 3:
            raise UserError(
                f"samples_coarse is {self.samples_coarse}; finer samples are drawn between coarse ones, which takes at "
                "least 3. Use more, or samples_fine 0."
            )
        if self.views and self.width < 2:
            raise UserError(f"width is {self.width}; the layer that sees the direction has half of it. Use at least 2.")
        if rule_of(self.method).needs_target:
            raise UserError(
                f"method {self.method} reads the class of a sample, and a point in space has none. Use dfa, sdfa, "
                "tdfa, shallow, bp, or one of the layer-wise methods."
            )

    def architecture(self) -> Architecture:
        """The architecture of both networks."""
        return Architecture(
            depth=self.depth,
            width=self.width,
            skip_every=self.skip_every,
            position_frequencies=self.position_frequencies,
            view_frequencies=self.view_frequencies,
            views=self.views,
            error_at=self.error_at,
        )

    def rendering(self, white_background: bool) -> Rendering:
        """How the fields are rendered."""
        return Rendering(
            samples_coarse=self.samples_coarse,
            samples_fine=self.samples_fine,
            white_background=white_background,
            density=self.density,
            noise=self.noise,
            precision=self.precision,
        )

    def reading(self) -> dict[str, Any]:
        """What decides how a scene is read: arguments of `nerf.data.load.load_scene`."""
        return {"size": self.size, "near": self.near, "far": self.far, "background": self.background}

    def rate(self, step: int) -> float:
        """The learning rate after `step` steps, as a share of `lr`."""
        return float(0.1 ** (step / (self.decay * self.steps)))


synthetic_bp = Preset(method=Method.BP, lr=5e-4)
synthetic_dfa = replace(synthetic_bp, method=Method.DFA, lr=1e-4)
real_bp = replace(synthetic_bp, noise=1.0, rays=4096, steps=200_000, decay=1.25)
real_dfa = replace(real_bp, method=Method.DFA)

# Ours: a scene of 100 x 100 pixels, minutes on a CPU. So few steps need a higher learning rate than published, one of
# `RATES`. At such rates a relu density may become zero everywhere, and stays so; softplus recovers.
small_bp = replace(
    synthetic_bp,
    size=100,
    samples_coarse=32,
    samples_fine=32,
    density="softplus",
    rays=384,
    lr=3e-3,  # of debug_dfa; the others have theirs from `SMALL_RATES`
    steps=1500,
    test_views=8,
)
small_dfa = replace(small_bp, method=Method.DFA)
debug_dfa = replace(
    small_dfa, size=20, depth=2, width=32, samples_coarse=8, samples_fine=8, rays=64, steps=20, test_views=1
)

# Figure A.1 (`tiny_nerf.py` of the release): one network of two hidden layers, no direction, 32 jittered samples a ray.
tiny_bp = Preset(
    method=Method.BP,
    depth=2,
    views=False,
    samples_coarse=32,
    samples_fine=0,
    rays=10_000,  # as many as a picture of 100 x 100 has
    lr=5e-3,
    decay=1e9,  # constant
    steps=5000,
    size=100,
)
tiny_dfa = replace(tiny_bp, method=Method.DFA)

_WITH_SHALLOW = {
    "synthetic": (synthetic_bp, synthetic_dfa),
    "real": (real_bp, real_dfa),
    "small": (small_bp, small_dfa),
    "tiny": (tiny_bp, tiny_dfa),
}
_SIZES: dict[str, dict[str, Any]] = {
    "2x128": {"depth": 2},
    "8x256": {"depth": 8, "width": 256},
    "xl": {"width": 425},
    "xxl": {"width": 512},
}
PRESETS = {
    f"{data}_{method.value}": replace(pair[method is not Method.BP], method=method)
    for data, pair in _WITH_SHALLOW.items()
    for method in (Method.BP, Method.DFA, Method.SHALLOW)
}
PRESETS |= {
    f"{name}_{size}": replace(PRESETS[name], **_SIZES[size])
    for name, size in (
        ("synthetic_bp", "8x256"),
        ("synthetic_dfa", "8x256"),
        ("real_bp", "8x256"),
        ("real_dfa", "8x256"),
        ("real_dfa", "xl"),
        ("synthetic_dfa", "xxl"),
        ("small_bp", "2x128"),
        ("small_dfa", "2x128"),
    )
}
PRESETS["debug_dfa"] = debug_dfa
# Feedback that learns: from backpropagation's signals in one pass of 50, or from forward passes with noise alone.
PRESETS["small_fitted"] = replace(small_dfa, method="fitted(exact_every=50)")
PRESETS["small_fdfa"] = replace(small_dfa, method="fdfa")
# One grid of learning rates for every small preset, backpropagation's like the others', seed 0: the best is that of the
# highest mean over scenes of the PSNR on validation views (table `nerf-rates`).
RATES = (1e-3, 3e-3, 1e-2, 3e-2)
SMALL_RATES = {
    "small_bp": 1e-2,
    "small_dfa": 3e-3,
    "small_shallow": 3e-2,
    "small_fitted": 3e-3,
    "small_fdfa": 3e-3,  # at 1e-2, the best after so few steps, fern and the solids diverge before the 1,500th
    "small_bp_2x128": 3e-3,
    "small_dfa_2x128": 1e-2,
}
PRESETS |= {name: replace(PRESETS[name], lr=rate) for name, rate in SMALL_RATES.items()}
TRUNK = {  # the error taken at the top of the trunk, so that what is above it is exact; rates as without
    f"{name}_trunk": replace(PRESETS[name], error_at="trunk") for name in ("small_dfa", "small_fitted", "small_fdfa")
}
PRESETS |= TRUNK
FORWARD = {  # what feedback from forward passes lacks on lego: steps of another size, looks, passes a look
    "small_fdfa_fast": replace(PRESETS["small_fdfa"], lr=1e-2),
    "small_fdfa_often": replace(PRESETS["small_fdfa"], method="fdfa(probe_every=25)"),
    "small_fdfa_passes": replace(PRESETS["small_fdfa"], method="fdfa(times=4)"),
}
PRESETS |= FORWARD
TRIED_LENGTH: dict[str, Any] = {"steps": 400, "test_views": 1, "val_views": 4}
TRIED: dict[str, dict[str, Preset]] = {  # by small preset: every rate that it was tried at, by a name of its own
    name: {f"{name}_lr-{rate:g}": replace(PRESETS[name], lr=rate, **TRIED_LENGTH) for rate in RATES}
    for name in SMALL_RATES
}
PRESETS |= {tried: preset for presets in TRIED.values() for tried, preset in presets.items()}

_DEFAULTS = {"synthetic": "small", "blender": "synthetic", "llff": "real"}  # family of presets by data set


def small_preset(method: str) -> Preset:
    """The small settings of a method; those of DFA where it has none of its own."""
    return replace(PRESETS.get(f"small_{method}", PRESETS["small_dfa"]), method=method)


def find_preset(*, name: str | None = None, method: str | None = None, dataset: str) -> Preset:
    """The preset called `name`; without one, the published settings for a data set, or small ones for "synthetic".

    Args:
        name: Of a preset, or None.
        method: dfa if None; a preset may not have another one.
        dataset: "synthetic", "blender" or "llff".

    Raises:
        UserError: there is no such preset, or the preset has another method.
    """
    if name is None:
        method = named(method or Method.DFA)
        family = _DEFAULTS.get(dataset, "small")
        return replace(PRESETS[f"{family}_{'bp' if method is Method.BP else 'dfa'}"], method=method)
    return named_preset(PRESETS, name, method=method)
