"""Convolutional networks of fixed shape: the CNN of arXiv 1906.04554, and BioTorch's two LeNets.

All are stages of convolution, activation and pool, then a `FullyConnected`. The feedback points are where the published
codes have them: before every layer with weights but the first, so after the pool. Until something is attached the
models are plain PyTorch.

Letters: B samples, C channels, H x W pixels, K outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from harness.errors import UserError
from tinydfa import DFALayer
from vision.models.fully_connected import FullyConnected
from vision.models.layers import activation


class Stage(nn.Module):
    """Convolution, dropout, activation, batch norm, pool, feedback point; what is off is left out.

    Args:
        conv: The convolution.
        act: See `vision.models.layers.activation`.
        pool: What follows the activation; None: nothing.
        batch_norm: Between activation and pool.
        dropout: Share of the channels left out, whole ones, before the activation.
    """

    def __init__(
        self, conv: nn.Conv2d, act: str, pool: nn.Module | None, batch_norm: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        steps: list[nn.Module] = [conv]
        if dropout:
            steps.append(nn.Dropout2d(dropout))
        steps.append(activation(act))
        if batch_norm:
            steps.append(nn.BatchNorm2d(conv.out_channels))
        if pool is not None:
            steps.append(pool)
        self.layer = nn.Sequential(*steps)
        self.point = DFALayer()

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to ``[B, channels, h, w]``."""
        h: Tensor = self.point(self.layer(x))
        return h


class ConvNet(nn.Module):
    """Stages, then fully connected layers.

    Args:
        stages: First to last.
        shape: Of one image, ``(C, H, W)``.
        classes: K.
        hidden: Width of the hidden fully connected layer.
        act: Its activation.
        input_dropout: Share of the input's channels left out, whole ones.
        batch_norm: After the hidden activation.
        inner_dropout: Before the hidden activation.

    Raises:
        UserError: the samples are no images, or too small for the stages.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        shape: tuple[int, ...],
        classes: int,
        hidden: int,
        act: str,
        *,
        input_dropout: float = 0.0,
        batch_norm: bool = False,
        inner_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.input_dropout = nn.Dropout2d(input_dropout) if input_dropout else None
        self.stages = nn.Sequential(*stages)
        widths = (self._features(shape), hidden, classes)
        self.fc = FullyConnected(widths, act, batch_norm=batch_norm, inner_dropout=inner_dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to logits ``[B, K]``."""
        if self.input_dropout is not None:
            x = self.input_dropout(x)
        y: Tensor = self.fc(self.stages(x))
        return y

    @torch.no_grad()
    def _features(self, shape: tuple[int, ...]) -> int:
        """How many numbers the stages leave of an image."""
        h = torch.zeros(1, *shape)
        self.stages.eval()  # so that batch norm keeps no statistics of this image
        for number, stage in enumerate(self.stages, start=1):
            try:
                h = stage(h)
            except RuntimeError:
                raise UserError(
                    f"{type(self).__name__}: nothing is left of an image of {' x '.join(map(str, shape[1:]))} in "
                    f"stage {number}. Pad smaller images to 32 x 32."
                ) from None
        self.stages.train()
        return h.numel()


class PrincipledCNN(ConvNet):
    """The CNN of arXiv 1906.04554: three 5 x 5 convolutions of 32, 64, 64 channels, pools of 3 x 3 every 2 pixels, 128.

    Args:
        shape: Of one image, ``(C, H, W)``, 15 x 15 pixels at least.
        classes: K.
        act: Activation of all hidden layers.
        batch_norm: After every hidden activation.
        input_dropout: Share of the input's channels that is left out.
        conv_dropout: Share of a convolution's channels, before its activation.
        inner_dropout: Of the hidden fully connected layer, before its activation.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int = 10,
        act: str = "tanh",
        *,
        batch_norm: bool = False,
        input_dropout: float = 0.0,
        conv_dropout: float = 0.0,
        inner_dropout: float = 0.0,
    ) -> None:
        check_image(shape)
        sizes = ((shape[0], 32), (32, 64), (64, 64))
        stages = [
            Stage(nn.Conv2d(*size, 5, padding=2), act, nn.MaxPool2d(3, 2), batch_norm, conv_dropout) for size in sizes
        ]
        super().__init__(
            stages,
            shape,
            classes,
            128,
            act,
            input_dropout=input_dropout,
            batch_norm=batch_norm,
            inner_dropout=inner_dropout,
        )


class LeNet(ConvNet):
    """BioTorch's LeNet for CIFAR-10: 3 x 3 convolutions of 32, 64, 128 channels, the last one averaged, then 256."""

    def __init__(self, shape: tuple[int, ...], classes: int = 10, act: str = "relu") -> None:
        check_image(shape)
        stages = [
            Stage(nn.Conv2d(shape[0], 32, 3), act, nn.MaxPool2d(2)),
            Stage(nn.Conv2d(32, 64, 3), act, nn.MaxPool2d(2)),
            Stage(nn.Conv2d(64, 128, 3), act, nn.AdaptiveAvgPool2d(1)),
        ]
        super().__init__(stages, shape, classes, 256, act)


class LeNetMNIST(ConvNet):
    """LeNet-5 as in BioTorch, for images of 32 x 32: 5 x 5 convolutions of 6, 16, 120 channels, then 84."""

    def __init__(self, shape: tuple[int, ...], classes: int = 10, act: str = "relu") -> None:
        check_image(shape)
        stages = [
            Stage(nn.Conv2d(shape[0], 6, 5), act, nn.MaxPool2d(2)),
            Stage(nn.Conv2d(6, 16, 5), act, nn.MaxPool2d(2)),
            Stage(nn.Conv2d(16, 120, 5), act, None),
        ]
        super().__init__(stages, shape, classes, 84, act)


def check_image(shape: tuple[int, ...]) -> None:
    """Raise `UserError` for samples that are no images."""
    if len(shape) != 3:
        raise UserError(f"convolutions need images, and a sample here has shape {shape}. Use --model fc.")
