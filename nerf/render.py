"""Render trained runs: a film of colour and depth, and test views beside the truth.

    python -m nerf.render runs/nerf/small_dfa-synthetic-solids-0 --out film --frames 40 --size 100
    python -m nerf.render RUN_BP RUN_DFA RUN_SHALLOW --out film     # side by side, in this order

Written are `film.mp4` and `film.gif`, along the scene's turntable or spiral, and `views.png`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from torch import Tensor

from harness.device import pick_device
from harness.errors import UserError
from nerf.data.load import load_scene
from nerf.field.fields import Fields
from nerf.output.pictures import film, look
from nerf.output.scores import evenly, psnr
from nerf.output.video import GIF_RATE, write_film, write_strip
from nerf.saved import load_run, read_settings
from nerf.scene.rays import view_rays
from nerf.scene.views import Scene

FILMS = ("film.mp4", "film.gif")
STRIP = "views.png"
CAPTIONED = 100  # pixels, narrower pictures are enlarged in the strip, so that captions fit


@dataclass(frozen=True, kw_only=True)
class Config:
    """Render films and pictures of trained runs of one scene."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of runs."""
    out: Path
    """Folder for the film and the pictures."""
    frames: int = 40
    """Pictures of the film."""
    size: int | None = None
    """Their width in pixels; that of the training pictures if left out."""
    views: int = 3
    """Test views to show beside the truth; as many as there are, if fewer."""
    rate: int = 20
    """Pictures of the film a second, at most 50."""
    data_dir: Path | None = None
    """Data root; else the one of the first run, $DFA_DATA, or the user's cache folder."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    chunk: int = 1024
    """Rays that are rendered at once."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise UserError("no run to render. Give the folder of one, such as runs/nerf/NAME.")
        for option in ("frames", "size", "views", "rate", "chunk"):
            if getattr(self, option) is not None and getattr(self, option) < 1:
                raise UserError(f"--{option} {getattr(self, option)}: give at least 1.")
        if self.rate > GIF_RATE:
            raise UserError(f"--rate {self.rate}: a GIF shows at most {GIF_RATE} pictures a second. Give fewer.")
        if self.out.exists() and not self.out.is_dir():
            raise UserError(f"--out {self.out} is a file. Name a folder for the film and the pictures.")


def render(config: Config) -> None:
    """Render as `config` says.

    Raises:
        UserError: a folder holds no run of this task, the runs are of several scenes, or a file cannot be written.
    """
    device = pick_device(config.device)
    settings = [read_settings(folder) for folder in config.runs]
    names = {(one["dataset"], one["scene"]) for one in settings}
    if len(names) > 1:
        found = ", ".join(sorted("/".join(name) for name in names))
        raise UserError(f"these runs are of several scenes ({found}). Render those of one scene together.")
    trained = [load_run(folder, device) for folder in config.runs]
    reading = [preset.reading() | {"size": None} for _, preset in trained]
    if any(one != reading[0] for one in reading):
        raise UserError("these runs differ in --near, --far or --background. Render those that have the same together.")
    captions = _captions([str(preset.method) for _, preset in trained], config.runs)
    fields = dict(zip(captions, (fields for fields, _ in trained), strict=True))
    dataset, name = names.pop()
    data_dir = config.data_dir or settings[0].get("data_dir")
    scene = load_scene(dataset, name, data_dir and Path(data_dir), **trained[0][1].reading()).to(device)
    if config.frames > len(scene.path):
        raise UserError(f"--frames {config.frames}: the way around a scene has {len(scene.path)} poses. Give fewer.")
    write_strip(config.out / STRIP, compared_views(fields, scene, config.views, config.chunk), _scale(scene.test.width))
    pictures = film(list(fields.values()), scene, config.frames, config.size or scene.test.width, config.chunk)
    for file in FILMS:
        write_film(config.out / file, pictures, config.rate)
    print(f"{config.out}: {', '.join((STRIP, *FILMS))}")


def compared_views(fields: Mapping[str, Fields], scene: Scene, count: int, chunk: int) -> list[dict[str, Tensor]]:
    """Rows for `write_strip`: the truth of evenly chosen test views, and each of `fields` with its PSNR."""
    views, rows = scene.test, []
    for index in evenly(len(views), count):
        truth = views.images[index].cpu()
        row = {views.names[index]: truth}
        for name, one in fields.items():
            rays = view_rays(scene, views, index)
            colour, _, _ = look(one, rays, views.height, views.width, chunk)
            row[f"{name} {psnr((colour.clamp(0, 1) - truth).square().mean().item()):.1f} dB"] = colour
        rows.append(row)
    return rows


def _captions(methods: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """A caption for each run: its method, else its folder, else numbered, whichever is unique."""
    names = list(methods) if len(set(methods)) == len(methods) else [folder.name for folder in folders]
    return names if len(set(names)) == len(names) else [f"{name} {number}" for number, name in enumerate(names, 1)]


def _scale(width: int) -> int:
    """Factor by which a picture of that width is enlarged."""
    return -(-CAPTIONED // width)


if __name__ == "__main__":
    from harness import cli

    cli.run(Config, render)
