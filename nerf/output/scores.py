"""Scores of rendered views against photographs: PSNR and SSIM of the fine network alone, by torchmetrics.

The release of arXiv 2006.12878 prints another number under the name of PSNR: that of the sum of coarse and fine squared
error on a batch of training rays, about 3 dB lower where both are alike.

SSIM is that of Wang et al. 2004, as in published tables: the mean over windows that lie in the picture. torchmetrics'
own mean also counts windows that reach over the border, which it fills by reflection. Before a plain background these
are equal in both pictures, and raise the score the more, the smaller the pictures are.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from harness.processes import ALONE, Processes
from harness.run.progress import track
from nerf.field.fields import Fields
from nerf.field.volume import render_view
from nerf.scene.rays import PIXEL_CENTRE, view_rays
from nerf.scene.views import Scene, Views

SSIM_KERNEL = 11  # pixels a side of its Gaussian window


def psnr(mse: float) -> float:
    """Peak signal-to-noise ratio in dB of a mean squared error of colours in 0..1.

    Example:
        >>> psnr(0.01)
        20.0
    """
    return -10 * math.log10(mse) if mse > 0 else math.inf


def compare(image: Tensor, truth: Tensor) -> dict[str, float]:
    """Scores of one picture ``[H, W, 3]`` against another: "psnr" in dB, and "ssim" if both sides have 11 pixels."""
    # imported here: it loads matplotlib and scipy.signal, which takes seconds
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

    image, truth = (picture.clamp(0, 1).movedim(-1, 0)[None] for picture in (image, truth))
    found = {"psnr": peak_signal_noise_ratio(image, truth, data_range=1.0).item()}
    if min(image.shape[-2:]) >= SSIM_KERNEL:
        _, index = structural_similarity_index_measure(
            image, truth, data_range=1.0, kernel_size=SSIM_KERNEL, return_full_image=True
        )
        border = SSIM_KERNEL // 2
        found["ssim"] = index[..., border:-border, border:-border].mean().item()
    return found


def evenly(total: int, wanted: int | None) -> list[int]:
    """`wanted` numbers out of 0..total-1, evenly spaced from the first on; None: all.

    Example:
        >>> evenly(10, 3)
        [0, 3, 6]
    """
    count = total if wanted is None else min(wanted, total)
    return [index * total // count for index in range(count)]


def score_views(
    fields: Fields,
    scene: Scene,
    indices: Sequence[int],
    *,
    views: Views | None = None,
    chunk: int = 4096,
    offset: float = PIXEL_CENTRE,
    processes: Processes = ALONE,
) -> list[dict[str, Any]]:
    """Render views and compare them: a dict of "view" and the scores of `compare` for each.

    Args:
        fields: The trained field, on the scene's device.
        scene: The scene.
        indices: Which of the views.
        views: Views of the scene; None: its test views.
        chunk: Rays rendered at once.
        offset: Where in its pixel a ray starts, see `nerf.scene.rays.camera_rays`.
        processes: Those that share the rays of every view; each gets all scores.
    """
    found, views = [], scene.test if views is None else views
    for index in track(indices, "views") if processes.is_main else indices:
        rays = view_rays(scene, views, index, offset=offset)
        rendered = render_view(fields, rays, chunk=chunk, processes=processes)
        truth = views.images[index]
        scores = compare(rendered.colour.reshape(truth.shape), truth)
        found.append({"view": views.names[index]} | scores)
    return found


def means(views: Sequence[dict[str, Any]], split: str = "test") -> dict[str, float]:
    """Means over views of the `split`, under "test_psnr" and, where every view has one, "test_ssim"."""
    names = [name for name in ("psnr", "ssim") if all(name in view for view in views)]
    return {f"{split}_{name}": statistics.fmean(view[name] for view in views) for name in names}
