"""Rays per second of training radiance fields: `python -m benchmarks.nerf_rays`.

Two questions, each answered within one run whose contestants take turns:

- What does a step by DFA cost beside one by backpropagation, on the published 8 x 256 network? Beside the ratio stands
  the limit that counting matrix products sets: backpropagation does three products a layer, the output, the weight's
  gradient and the input's (none for an encoding, which nobody trains), DFA the first two, and one projection of the
  four numbers of the error for all points.
- What does leaving out empty space bring, to both alike? A small field is trained on the project's ray-traced scene;
  then steps on it, and pictures of it, with and without the grid that remembers where something is.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks.environment import save
from benchmarks.timing import Step, interleave, ratio
from harness.run.allocator import keep_freed_memory
from nerf.data.load import load_scene
from nerf.field.encoding import encoded_width
from nerf.field.fields import Fields
from nerf.field.network import OUTPUTS, Architecture
from nerf.output.scores import evenly, means, score_views
from nerf.presets import PRESETS, Preset
from nerf.scene.rays import training_rays
from nerf.scene.views import Scene
from nerf.step import GRID_ROUNDS, GRID_WARMUP, drawing, make_grid, train_step, update_grid
from nerf.train import attach_all
from tinydfa import Method

TARGET = 0.80  # of a step by backpropagation: what we hold a step by DFA to
TARGET_SKIPPING = 3.0  # times the rays, at the same PSNR within 0.1 dB
SKIPPING = ", empty space left out"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Measure rays per second: backpropagation and DFA, with and without empty space, eager and compiled."""

    parts: tuple[Literal["methods", "skipping"], ...] = ("methods", "skipping")
    """What to measure."""
    depth: int = 8
    """Of the network that methods are compared on."""
    width: int = 256
    """Of the network that methods are compared on."""
    rays: int = 64
    """A step, of 64 + 128 samples each."""
    rounds: int = 12
    """Steps of each contestant."""
    size: int = 50
    """Width of the scene's pictures."""
    fit_steps: int = 500
    """Steps for the small field that skipping is measured on."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: products of numbers rounded to bfloat16, in the comparison of methods."""
    compile: bool = False
    """Measure compiled networks beside eager ones; compiling takes minutes on a CPU."""
    threads: int = 2
    """Threads that torch may use."""
    device: str = "cpu"
    """cpu, cuda or mps."""
    out: Path | None = None
    """Write the numbers to this JSON file as well."""


def limit(shape: Architecture) -> float:
    """Products of a DFA step over those of a backpropagation step, per sample. The encoded direction, whose products
    are shared by the samples of a ray, is left out."""
    width, position = shape.width, encoded_width(3, shape.position_frequencies)
    joins = sum(shape.joins(layer) for layer in range(shape.depth))
    of_data = (1 + joins) * position * width
    hidden = (shape.depth - 1) * width**2
    top = width + width**2 + width * (width // 2) + 3 * (width // 2) if shape.views else OUTPUTS * width
    backprop = 2 * of_data + 3 * (hidden + top)
    dfa = 2 * (of_data + hidden + top) + OUTPUTS * width
    return dfa / backprop


def stepper(fields: Fields, scene: Scene, rays: int, device: str) -> Callable[[], None]:
    """One training step on `fields` after the other, each with other rays."""
    optimizer = torch.optim.Adam(fields.parameters(), lr=0.0, fused=True)  # it does all the work, and changes nothing
    everything, colours = training_rays(scene)
    number = 0

    def step() -> None:
        nonlocal number
        number += 1
        generator = drawing(0, number, torch.device(device))
        train_step(fields, everything, colours, optimizer, generator, batch=rays, chunk=rays)

    return step


def load(config: Config) -> Scene:
    """The ray-traced scene."""
    return load_scene("synthetic", None, None, size=config.size).to(config.device)


def large_preset(config: Config) -> Preset:
    """The settings that methods are compared with."""
    return replace(PRESETS["synthetic_bp_8x256"], depth=config.depth, width=config.width, precision=config.precision)


def method_step(config: Config, scene: Scene, method: str, compiled: bool = False) -> Callable[[], None]:
    """A step on the large network by a method, ready to be called again and again."""
    preset = large_preset(config)
    torch.manual_seed(0)
    fields = Fields(preset.architecture(), preset.rendering(scene.white_background)).to(config.device)
    attach_all(fields, method, seed=0)
    if compiled:
        for network in fields.networks().values():
            network.compile(dynamic=True)
    return stepper(fields, scene, config.rays, config.device)


def measure_methods(config: Config, scene: Scene) -> list[dict[str, Any]]:
    """Steps on the large network, by method."""
    steps: dict[str, Step] = {}
    for compiled in (False, True) if config.compile else (False,):
        for method in (Method.BP, Method.DFA):
            name = f"{method.value}{', compiled' if compiled else ''}"
            steps[name] = method_step(config, scene, method, compiled)
    times = interleave(steps, config.rounds, device=config.device)
    return [
        {
            "measured": f"{config.depth} x {config.width}, {config.precision}",
            "contestant": name,
            "rays a second": round(config.rays / statistics.median(times[name])),
            "step to that of bp": round(ratio(times, name, "bp"), 3),
            "limit": round(limit(large_preset(config).architecture()), 3) if name.startswith("dfa") else None,
            "target": TARGET if name == "dfa" else None,
            "times the rays": None,
            "PSNR": None,
        }
        for name in steps
    ]


def fitted(scene: Scene, preset: Preset, steps: int, device: str) -> Fields:
    """A field of `scene`, trained by backpropagation."""
    torch.manual_seed(0)
    fields = Fields(preset.architecture(), preset.rendering(scene.white_background)).to(device)
    rays, colours = training_rays(scene)
    optimizer = torch.optim.Adam(fields.parameters(), preset.lr, fused=True)
    for step in range(steps):
        generator = drawing(1, step, torch.device(device))
        train_step(fields, rays, colours, optimizer, generator, batch=preset.rays, chunk=128)
    return fields


def measure_skipping(config: Config, scene: Scene) -> list[dict[str, Any]]:
    """Steps and pictures of a small trained field, with and without its empty space."""
    preset = replace(PRESETS["small_bp"], rays=256, samples_coarse=64, samples_fine=128)  # as many as published
    field = fitted(scene, preset, config.fit_steps, config.device)
    grid = make_grid(scene.bounds, preset.samples_coarse)
    for _ in range(GRID_WARMUP + GRID_ROUNDS):
        update_grid(grid, field)
    steps: dict[str, Step] = {}
    scores: dict[bool, float] = {}
    for skip in (False, True):
        field.occupied = grid.occupied if skip else None
        scores[skip] = means(score_views(field, scene, evenly(len(scene.test), 4), chunk=512))["test_psnr"]
    for method in (Method.BP, Method.DFA):
        for skip in (False, True):
            name = f"{method.value}{SKIPPING if skip else ''}"
            copy = Fields(preset.architecture(), preset.rendering(scene.white_background)).to(config.device)
            copy.load_state_dict(field.state_dict())
            copy.occupied = grid.occupied if skip else None
            attach_all(copy, method, seed=0)
            steps[name] = stepper(copy, scene, preset.rays, config.device)
    times = interleave(steps, config.rounds, device=config.device)
    rows = []
    for name in steps:
        with_all = name.removesuffix(SKIPPING)
        rows.append(
            {
                "measured": f"{preset.depth} x {preset.width}, {grid.share:.0%} of the box in question",
                "contestant": name,
                "rays a second": round(preset.rays / statistics.median(times[name])),
                "step to that of bp": round(ratio(times, name, "bp"), 3),
                "limit": None,
                "target": None if name == with_all else TARGET_SKIPPING,
                "times the rays": round(ratio(times, with_all, name), 2) if name != with_all else None,
                "PSNR": round(scores[name != with_all], 2),
            }
        )
    return rows


def main(config: Config) -> None:
    """Measure, and print the table."""
    from rich.console import Console
    from rich.table import Table

    torch.set_num_threads(config.threads)
    keep_freed_memory()
    scene = load(config)
    rows: list[dict[str, Any]] = []
    if "methods" in config.parts:
        rows += measure_methods(config, scene)
    if "skipping" in config.parts:
        rows += measure_skipping(config, scene)
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row.values()))
    Console(width=150).print(table)
    if config.out is not None:
        save(config.out, config.device, rows)


if __name__ == "__main__":
    from harness import cli

    cli.run(Config, main)
