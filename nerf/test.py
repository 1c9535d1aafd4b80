"""Score a trained field on test views: PSNR and SSIM of the fine network, a mean over views, as JSON.

    python -m nerf.test runs/nerf/dfa-blender-lego-0
    python -m nerf.test --checkpoint-2020 synth_lego_dfa.ckpt --dataset blender --scene lego --size 200

The second form is for the networks that the authors of arXiv 2006.12878 released. What their script prints as PSNR
is that of the sum of coarse and fine error; here the fine network alone is scored.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro

from harness.device import pick_device
from harness.errors import UserError
from harness.precision import Precision, check_precision
from harness.tables.results import plain
from nerf.data.images import Background
from nerf.data.load import DATASETS, load_scene
from nerf.field.fields import Fields
from nerf.field.release2020 import load_2020, pixel_offset
from nerf.output.scores import evenly, means, score_views
from nerf.saved import load_run, read_settings
from nerf.scene.rays import PIXEL_CENTRE
from nerf.scene.views import Scene


@dataclass(frozen=True, kw_only=True)
class Config:
    """Score a trained field on the test views of its scene."""

    run: tyro.conf.Positional[Path | None] = None
    """Folder of a run of nerf.train."""
    checkpoint_2020: Path | None = None
    """A checkpoint of the 2020 release, in place of a run."""
    dataset: str | None = None
    """blender or llff; of a run, its own if left out."""
    scene: str | None = None
    """Name of the scene; of a run, its own if left out."""
    size: int | None = None
    """Width of the pictures; of a run, its own if left out, else as stored."""
    near: float | None = None
    """With --checkpoint-2020: where rays begin, in the units of the cameras' file; by the cameras if left out."""
    far: float | None = None
    """With --checkpoint-2020: where rays end."""
    background: Background | None = None
    """With --checkpoint-2020: what is behind the scene; white if its pictures have an alpha channel, else black."""
    views: int | None = None
    """How many test views, evenly chosen; all if left out."""
    dual: bool = False
    """Render the mean of the coarse and the fine network (NeRF-Dual)."""
    precision: Precision | None = None
    """bf16: products of numbers rounded to bfloat16; of a run, its own if left out, else fp32."""
    chunk: int = 1024
    """Rays rendered at once."""
    data_dir: Path | None = None
    """Data root; else $DFA_DATA, else the user's cache folder."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    out: Path | None = None
    """Write the scores to this file as well."""

    def __post_init__(self) -> None:
        if (self.run is None) == (self.checkpoint_2020 is None):
            raise UserError("nerf.test scores one thing: give the folder of a run, or --checkpoint-2020 FILE.")
        for option, value in (("--size", self.size), ("--views", self.views), ("--chunk", self.chunk)):
            if value is not None and value < 1:
                raise UserError(f"{option} {value}: give at least 1.")
        reading = {"--near": self.near, "--far": self.far, "--background": self.background}
        for option, said in reading.items():
            if said is not None and self.run is not None:
                raise UserError(f"{option} {said}: a run has its own. Leave it out.")
            if isinstance(said, float) and not 0 < said < math.inf:
                raise UserError(f"{option} {said}: it must be above 0, and finite.")
        if self.out is not None and self.out.is_dir():
            raise UserError(f"--out {self.out} is a folder. Name a file, such as {self.out / 'scores.json'}.")


def test(config: Config) -> dict[str, Any]:
    """Scores as `config` asks: of every view, and their means under "metrics".

    Raises:
        UserError: no such run, checkpoint or scene, or a damaged one.
    """
    device = pick_device(config.device)
    if config.precision is not None:
        check_precision(config.precision, device)
    fields, scene, offset = _from_2020(config) if config.run is None else _from_run(config, config.run)
    if config.dual and fields.fine is None:
        raise UserError(f"--dual: {config.run} was trained with --samples-fine 0 and has one network. Leave it out.")
    if config.views is not None and config.views > len(scene.test):
        raise UserError(f"--views {config.views}: the scene has {len(scene.test)} test views. Give fewer.")
    fields.rendering = replace(
        fields.rendering, dual=config.dual, precision=config.precision or fields.rendering.precision
    )
    indices = evenly(len(scene.test), config.views)
    views = score_views(fields.to(device), scene.to(device), indices, chunk=config.chunk, offset=offset)
    return {"scene": scene.name, "size": scene.test.width, "dual": config.dual, "metrics": means(views), "views": views}


def _from_run(config: Config, folder: Path) -> tuple[Fields, Scene, float]:
    """The fields of a run, and its scene."""
    settings = read_settings(folder)
    dataset = settings["dataset"] if config.dataset is None else config.dataset
    name = settings["scene"] if config.scene is None else config.scene
    if dataset in DATASETS and (dataset == "llff") != (settings["dataset"] == "llff"):
        raise UserError(f"--dataset {dataset}: {folder} saw {settings['dataset']}, in other coordinates. Leave it out.")
    fields, preset = load_run(folder, pick_device(config.device))
    reading = preset.reading() | {"size": config.size or preset.size}
    scene = load_scene(dataset, name, config.data_dir, **reading)
    if scene.white_background != fields.rendering.white_background:
        raise UserError(f"{name} has another background than the run in {folder}. Score the scene of the run.")
    return fields, scene, PIXEL_CENTRE


def _from_2020(config: Config) -> tuple[Fields, Scene, float]:
    """The fields of a released checkpoint, and the scene that the user names."""
    assert config.checkpoint_2020 is not None
    scene = load_scene(
        "blender" if config.dataset is None else config.dataset,
        config.scene,
        config.data_dir,
        size=config.size,
        near=config.near,
        far=config.far,
        background=config.background,
    )
    fields = load_2020(config.checkpoint_2020, white_background=scene.white_background)
    return fields, scene, pixel_offset(scene.test.width, scene.ndc)


def main(config: Config) -> None:
    """Run the command."""
    scores = json.dumps(plain(test(config)), allow_nan=False)
    print(scores, flush=True)  # before writing the file, which may fail
    if config.out is not None:
        from harness.files import write_whole

        write_whole(config.out, scores + "\n")


if __name__ == "__main__":
    from harness import cli

    cli.run(Config, main)
