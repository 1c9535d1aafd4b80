"""Pictures of trained fields: along a scene's path, and those that a result keeps for the report."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from harness.processes import ALONE, Processes
from harness.run.progress import track
from nerf.field.fields import Fields
from nerf.field.volume import render_view
from nerf.output.scores import evenly
from nerf.output.video import beside, colour_depth, to_bytes
from nerf.scene.rays import Rays, scene_rays, view_rays
from nerf.scene.views import Scene

FRAMES, FRAME_WIDTH = 24, 80  # of a film that a result keeps


def kept_pictures(fields: Fields, scene: Scene, chunk: int, processes: Processes = ALONE) -> dict[str, Any]:
    """A test view and a film as text, for a result: the PNG or GIF in base64, by name.

    Several processes share the rays of every picture.

    Returns:
        "truth", "colour" and "depth", PNGs of the first test view, and "film", a GIF of colour and depth side by side
        along the scene's path.
    """
    truth = scene.test.images[0].cpu()
    rays = view_rays(scene, scene.test, 0)
    colour, depth, opacity = look(fields, rays, scene.test.height, scene.test.width, chunk, processes)
    near, far = depth_range(scene, [(colour, depth, opacity)])
    shown = {"truth": truth, "colour": colour, "depth": colour_depth(depth, near, far, opacity)}
    pictures = film([fields], scene, FRAMES, min(FRAME_WIDTH, scene.test.width), chunk, processes)
    return {name: encoded([picture], "png") for name, picture in shown.items()} | {"film": encoded(pictures, "gif")}


def encoded(pictures: Sequence[Tensor], kind: str) -> str:
    """A picture as PNG, or several as a GIF that loops, in base64."""
    import imageio.v3 as iio
    import numpy as np

    if kind == "png":
        content = iio.imwrite("<bytes>", to_bytes(pictures[0]), extension=".png")
    else:
        frames = np.stack([to_bytes(picture) for picture in pictures])
        content = iio.imwrite("<bytes>", frames, extension=".gif", duration=100, loop=0)
    return base64.b64encode(content).decode()


def film(
    fields: Sequence[Fields], scene: Scene, frames: int, width: int, chunk: int, processes: Processes = ALONE
) -> list[Tensor]:
    """Pictures ``[h, w, 3]`` along the scene's path: colour and depth by each of `fields`, from left to right.

    Depths have one scale throughout. Heights follow from the width; the lens is that of the first test view.
    """
    test = scene.test
    height = max(round(test.height * width / test.width), 1)
    lens = test.lens.of(0).resized(width / test.width, height / test.height)
    poses = scene.path[torch.tensor(evenly(len(scene.path), frames), device=scene.path.device)]
    seen = [
        [look(one, scene_rays(scene, pose, height, width, lens), height, width, chunk, processes) for one in fields]
        for pose in (track(poses, "frames", len(poses)) if processes.is_main else poses)
    ]
    near, far = depth_range(scene, [view for views in seen for view in views])
    return [
        beside([part for view in views for part in (view[0], colour_depth(view[1], near, far, view[2]))])
        for views in seen
    ]


def look(
    fields: Fields, rays: Rays, height: int, width: int, chunk: int, processes: Processes = ALONE
) -> tuple[Tensor, Tensor, Tensor]:
    """Colour, depth and opacity of a picture, on the CPU."""
    seen = render_view(fields, rays, chunk=chunk, processes=processes)
    return tuple(part.cpu().unflatten(0, (height, width)) for part in (seen.colour, seen.depth, seen.opacity))


def depth_range(scene: Scene, seen: Sequence[tuple[Tensor, Tensor, Tensor]]) -> tuple[float, float]:
    """Least and greatest depth of pixels with an opacity above 0.5; the scene's own range if there are none."""
    depths = torch.cat([depth[opacity > 0.5] for _, depth, opacity in seen])
    if not len(depths) or bool(depths.min() == depths.max()):
        return scene.near, scene.far
    return depths.min().item(), depths.max().item()
