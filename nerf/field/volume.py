"""Volume rendering: the colour, depth and opacity of rays through a radiance field.

With colour c_i and density s_i at depth t_i, and d_i the distance to the next sample:

    opacity of a sample      a_i = 1 - exp(-s_i d_i)
    transmittance up to it   T_i = exp(-sum_{j<i} s_j d_j)
    colour of the ray        C = sum_i T_i a_i c_i,  plus, on a white background, 1 - sum_i T_i a_i

c is the sigmoid of the network's output, and s either of two functions of it:

    relu      as in NeRF (arXiv 2003.08934, eq. 3) and the releases of 2020. The last sample reaches to infinity.
              Where every output is negative there is no gradient: a network that gets there never recovers.
    softplus  of the output less 1, as in mip-NeRF (arXiv 2103.13415): there is always a gradient. The density
              is never quite zero, so the last sample is as long as the one before.

Letters: R rays, S samples a ray.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.precision import at_least_float32, autocast, products
from harness.processes import ALONE, Processes
from nerf.field.fields import Fields, Occupied, Rendering
from nerf.field.network import OUTPUTS, Network
from nerf.field.sampling import ALL, Draws, even_depths, finer_depths
from nerf.scene.rays import Rays, pick

INFINITE = 1e10  # thickness of the last sample
ROUND = 512  # batches of occupied samples are padded to a multiple of it: a kernel is compiled for every size


class Rendered(NamedTuple):
    """R rendered rays."""

    colour: Tensor  # [R, 3]
    depth: Tensor  # [R], mean of the samples' depths by weight; 0 where nothing is met
    opacity: Tensor  # [R], from 0 (background alone) to 1
    coarse: Tensor  # [R, 3], by the coarse network; the same as `colour` where there is no fine one


def render_rays(fields: Fields, rays: Rays, generator: torch.Generator | None = None, own: slice = ALL) -> Rendered:
    """Render rays.

    Args:
        fields: The networks, and how they are rendered.
        rays: R rays.
        generator: Draws depths, and noise if there is to be any; None: evenly spaced depths, no noise.
        own: Render only these of the rays, as one of several processes that share them. The generator draws for all.

    Returns:
        The own rays, rendered.
    """
    draws = None if generator is None else Draws(generator, len(rays.origins))
    depths = even_depths(rays.near, rays.far, fields.rendering.samples_coarse, draws)
    mine, draws = pick(rays, own), draws and draws._replace(own=own)
    if fields.occupied is None:
        return _look_along(fields, mine, depths[own], draws)
    met = fields.occupied(places(rays, depths)).any(dim=1)
    hits = met.nonzero()[:, 0]
    if len(hits) == len(depths):
        return _look_along(fields, mine, depths[own], draws)
    draws = draws and draws._replace(rays=len(hits))
    if own != ALL:
        is_own = torch.zeros_like(met)
        is_own[own] = True
        draws = draws and draws._replace(own=is_own[hits])
        hits = met[own].nonzero()[:, 0]
    found = _look_along(fields, pick(mine, hits), depths[own][hits], draws)
    return _with_misses(fields, found, hits, len(mine.origins))


def _with_misses(fields: Fields, found: Rendered, hits: Tensor, rays: int) -> Rendered:
    """All `rays`, of which those numbered `hits` are rendered in `found`; the others meet the background alone."""
    background = float(fields.rendering.white_background)
    return Rendered(
        *(
            part.new_full((rays, *part.shape[1:]), empty).index_copy(0, hits, part)
            for part, empty in zip(found, (background, 0.0, 0.0, background), strict=True)
        )
    )


def _look_along(fields: Fields, rays: Rays, depths: Tensor, draws: Draws | None) -> Rendered:
    """Render `rays` with the coarse network evaluated at `depths`, ``[R, S]``."""
    settings = fields.rendering

    def look(depths: Tensor, *networks: Network) -> tuple[Rendered, Tensor]:
        answers = [evaluate(network, rays, depths, fields.occupied) for network in networks]
        raw = answers[0] if len(answers) == 1 else torch.stack(answers).mean(dim=0)
        if draws is not None and settings.noise > 0:
            noise = draws.normal(depths.shape[1]) * settings.noise
            raw = torch.cat([raw[..., :3], raw[..., 3:] + noise[..., None]], dim=-1)
        return composite(raw, depths, rays.directions, settings)

    coarse, weights = look(depths, fields.coarse)
    if fields.fine is None:
        return coarse
    depths = finer_depths(depths, weights.detach(), settings.samples_fine, draws)
    fine, _ = look(depths, fields.fine, *([fields.coarse] if settings.dual else []))
    return fine._replace(coarse=coarse.colour)


@torch.no_grad()
def render_view(fields: Fields, rays: Rays, *, chunk: int = 4096, processes: Processes = ALONE) -> Rendered:
    """Render `rays`, perhaps all of a picture, `chunk` of them at a time and without gradients.

    Several processes render a share each, and all get the whole.
    """
    device = rays.origins.device
    own = Rays(*(processes.share(part) for part in rays))
    precision, starts = fields.rendering.precision, range(0, len(own.origins), chunk)
    with products(precision), autocast(precision, own.origins):
        parts = [render_rays(fields, pick(own, slice(start, start + chunk))) for start in starts]
    seen = [torch.cat(values) for values in zip(*parts, strict=True)]
    return Rendered(*(seen if processes.size == 1 else (processes.merge(part).to(device) for part in seen)))


def places(rays: Rays, depths: Tensor) -> Tensor:
    """The places at `depths`, ``[R, S]``, along `rays`: ``[R, S, 3]``."""
    return rays.origins[:, None] + rays.directions[:, None] * depths[..., None]


def evaluate(network: Network, rays: Rays, depths: Tensor, occupied: Occupied | None = None) -> Tensor:
    """Outputs for colour and density at `depths`, ``[R, S]``: ``[R, S, 4]``, at least float32.

    All samples go through the network in one batch. At points that are known to be empty the density output is minus
    infinity.
    """
    points = places(rays, depths)
    if occupied is None:
        return at_least_float32(network(points.flatten(0, 1), rays.views)).unflatten(0, depths.shape)
    ray, sample = occupied(points).nonzero(as_tuple=True)
    raw = points.new_full((*depths.shape, OUTPUTS), -math.inf)
    padding = (0, -len(ray) % ROUND)  # repeats sample 0; its outputs are dropped
    asked, of = (F.pad(index, padding) for index in (sample, ray))
    answers = at_least_float32(network(points[of, asked], rays.views, of))
    return raw.index_put_((ray, sample), answers[: len(ray)])


def densities(raw: Tensor, kind: str) -> Tensor:
    """Densities, not negative, of the network's fourth output."""
    return torch.relu(raw) if kind == "relu" else F.softplus(raw - 1)


def composite(raw: Tensor, depths: Tensor, directions: Tensor, settings: Rendering) -> tuple[Rendered, Tensor]:
    """Composite the samples along rays.

    Args:
        raw: The network's outputs, ``[R, S, 4]``.
        depths: In ascending order, ``[R, S]``.
        directions: ``[R, 3]``; depths are multiples of them.
        settings: Background and kind of density.

    Returns:
        The rendered rays, and the weight of each sample in the colour, ``[R, S]``; weights add up to the opacity.
    """
    lengths = depths.diff(dim=1)
    last = torch.full_like(lengths[:, :1], INFINITE) if settings.density == "relu" else lengths[:, -1:]
    lengths = torch.cat([lengths, last], dim=1)
    thickness = densities(raw[..., 3], settings.density) * (lengths * directions.norm(dim=1, keepdim=True))
    passing = torch.exp(-thickness[:, :-1].cumsum(dim=1))
    weights = F.pad(passing, (1, 0), value=1.0) * -torch.expm1(-thickness)
    opacity = weights.sum(dim=1)
    colour = (weights[..., None] * torch.sigmoid(raw[..., :3])).sum(dim=1)  # never a product in bfloat16
    if settings.white_background:
        colour = colour + (1 - opacity)[:, None]
    depth = (weights * depths).sum(dim=1) / opacity.clamp_min(1e-10)
    return Rendered(colour, depth, opacity, colour), weights
