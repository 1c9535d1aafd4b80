"""How far a method's hidden gradients point along backpropagation's, in both networks of a field."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.run.numbers import at_points, by_curve
from nerf.field.fields import Fields
from nerf.field.volume import render_rays
from nerf.output.scores import evenly
from nerf.scene.rays import Rays, pick
from tinydfa import attachment_of, measure_alignment

RAYS = 256  # evenly chosen among all training rays


def network_alignment(fields: Fields, rays: Rays, colours: Tensor) -> dict[str, float]:
    """Mean cosine over samples at every feedback point, by "alignment coarse points.0" and so on.

    The loss is that of a training step, on `RAYS` of the rays at evenly spaced depths and without noise.

    Args:
        fields: Its networks are attached to methods, which are compared with backpropagation.
        rays: All training rays, R of them.
        colours: What they see, ``[R, 3]``.
    """
    index = torch.tensor(evenly(len(colours), RAYS), device=colours.device)
    some, truth = pick(rays, index), colours[index]

    def loss(_: nn.Module) -> Tensor:
        seen = render_rays(fields, some)
        fine = (seen.colour - truth).square().mean()
        return fine if fields.fine is None else fine + (seen.coarse - truth).square().mean()

    cosines: dict[str, float] = {}
    for name, network in fields.networks().items():
        found, attachment = measure_alignment(network, loss), attachment_of(network)
        points = [] if attachment is None else attachment.points
        cosines |= by_curve(at_points(found, points), name)
    return cosines
