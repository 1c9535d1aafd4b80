"""The options of a training: the preset's settings, and where and how it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from harness.config import BaseConfig
from harness.errors import UserError
from harness.methods import check_compile, slug
from harness.options import Fixed, Flat, PresetName
from harness.run.memory import MemoryConfig
from nerf.data.load import default_scene
from nerf.presets import Preset, find_preset

CACHED_SAMPLES = 8192  # whose activations fit into a CPU's cache: a step is a quarter faster than with all at once


@dataclass(frozen=True, kw_only=True)
class Config(BaseConfig, MemoryConfig):
    """Train a radiance field."""

    found = ("white_background",)

    preset: Flat[Preset]
    named: PresetName = None
    dataset: str = "synthetic"
    """synthetic, which needs no files, blender or llff."""
    scene: str | None = None
    """Name of the scene, such as lego or fern; the data set's first one if left out."""
    chunk: int | None = None
    """Rays that are rendered at once; if left out 4096, or on a CPU what fits its cache."""
    compile: bool = False
    """Compile both networks first."""
    keep_pictures: bool = False
    """Keep a test view and a film in the result, for the report."""
    log_every: int | None = None
    """Steps between two points of the curves; a 20th of all if left out."""
    alignment_every: int | None = None
    """Steps between measurements of the alignment with backpropagation; none if left out."""
    checkpoint_every: int = 1000
    """Steps between checkpoints."""
    typed: Fixed[frozenset[str]] = frozenset()
    """Names of the options that stood on the command line."""

    @staticmethod
    def choose(preset: str | None = None, method: str | None = None, dataset: str = "synthetic") -> Preset:
        """The preset that these options select.

        Raises:
            UserError: there is no such preset, or it has another method.
        """
        return find_preset(name=preset, method=method, dataset=dataset)

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in ("chunk", "log_every", "alignment_every"):
            if getattr(self, option) is not None and getattr(self, option) < 1:
                raise UserError(f"--{option.replace('_', '-')} {getattr(self, option)}: give at least 1.")
        self.keeps(self.preset.method)  # refused now if it is impossible
        if self.compile:
            check_compile(self.preset.method)

    def check(self, typed: frozenset[str]) -> None:
        """Remember what was typed: a number of views that was is meant as it stands, unlike a preset's."""
        object.__setattr__(self, "typed", typed)

    def chunk_on(self, device: torch.device) -> int:
        """Rays that are rendered at once on `device`."""
        cached = max(CACHED_SAMPLES // (self.preset.samples_coarse + self.preset.samples_fine), 1)
        return self.chunk or (cached if device.type == "cpu" else 4096)

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        scene = self.scene or default_scene(self.dataset)
        return f"{self.named or slug(self.preset.method)}-{self.dataset}-{scene}-{self.seed}"

    def settings(self) -> dict[str, Any]:
        """All that decided the run: the preset, the scene and the seed."""
        about = {"dataset": self.dataset, "scene": self.scene or default_scene(self.dataset)}
        return vars(self.preset) | about | {"seed": self.seed, "chunk": self.chunk, "compile": self.compile}

    def lengths(self) -> dict[str, str]:
        """No run can be prolonged."""
        return {"steps": "the learning rate falls over all of them"}
