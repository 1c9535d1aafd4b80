"""Residual networks for images of about 32 x 32, as in section 4.2 of He et al. 2016 (arXiv 1512.03385).

Three groups of blocks of 16, 32 and 64 channels; the second and third begin at half the size. A shortcut that changes
the size has no weights: it takes every second pixel and adds channels of zeros ("option A"). Feedback points are after
the stem and after each block; inside a block the signal is backpropagated.

Letters: B samples, C channels, H x W pixels, K outputs.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tinydfa import DFALayer
from vision.models.convnets import check_image

CHANNELS = (16, 32, 64)


class Block(nn.Module):
    """Two 3 x 3 convolutions with batch norm, a shortcut around them, ReLU, and a feedback point."""

    def __init__(self, before: int, channels: int) -> None:
        super().__init__()
        self.stride = 1 if before == channels else 2
        self.layers = nn.Sequential(
            nn.Conv2d(before, channels, 3, self.stride, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.zeros = (channels - before) // 2  # channels added on either side
        self.point = DFALayer()

    def forward(self, x: Tensor) -> Tensor:
        """``[B, before, H, W]`` to ``[B, channels, H / stride, W / stride]``."""
        shortcut = x
        if self.stride > 1:
            shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.zeros, self.zeros))
        h: Tensor = self.point(F.relu(self.layers(x) + shortcut))
        return h


class ResNet(nn.Module):
    """A residual network of ``6 blocks + 2`` layers with weights: ResNet-20 has 3 blocks a group, ResNet-56 has 9.

    Args:
        blocks: In each of the three groups.
        shape: Of one image, ``(C, H, W)``.
        classes: K.

    Raises:
        UserError: the samples are no images.
    """

    def __init__(self, blocks: int, shape: tuple[int, ...], classes: int = 10) -> None:
        super().__init__()
        check_image(shape)
        first = CHANNELS[0]
        self.stem = nn.Sequential(
            nn.Conv2d(shape[0], first, 3, padding=1, bias=False), nn.BatchNorm2d(first), nn.ReLU(), DFALayer()
        )
        befores = (first, *CHANNELS[:-1])
        self.blocks = nn.Sequential(
            *(
                Block(before if number == 0 else channels, channels)
                for before, channels in zip(befores, CHANNELS, strict=True)
                for number in range(blocks)
            )
        )
        self.top = nn.Linear(CHANNELS[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to logits ``[B, K]``."""
        h: Tensor = self.blocks(self.stem(x))
        y: Tensor = self.top(h.mean(dim=(2, 3)))
        return y
