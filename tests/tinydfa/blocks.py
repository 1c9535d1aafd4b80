"""Models whose graphs hang together in all the ways that matter to a pass that frees them block by block."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

WIDTH, CLASSES = 16, 16


def layer(width: int = WIDTH) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Dropout(0.2))


class Stack(nn.Module):
    """Blocks one after another, and a linear top: ``[B, 16]`` to ``[B, 16]``."""

    def __init__(self, blocks: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(layer() for _ in range(blocks))
        self.top = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.top(x)


class Checkpointed(Stack):
    """Blocks that recompute themselves."""

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False)
        return self.top(x)


class CheckpointedInside(Stack):
    """Blocks that recompute their inside, while their ends are not."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = layer()

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(checkpoint(self.inner, x, use_reentrant=False))

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(self.Block() for _ in range(3))


class WideAndDeep(Stack):
    """The output reads the first layer around the points."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(WIDTH, WIDTH)
        self.wide = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return super().forward(x) + self.wide(x)


class Tied(Stack):
    """Two blocks share all their weights, and the top the weight of a third."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks[2] = self.blocks[0]
        self.top.weight = self.blocks[3][0].weight


class Tuples(Stack):
    """Blocks that return a tuple, of which the second entry is the point."""

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = layer()

        def forward(self, x: Tensor) -> tuple[str, dict[str, Tensor]]:
            return "state", {"h": self.inner(x)}

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(self.Pair() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)[1]["h"]
        return self.top(x)


class NormNet(nn.Module):
    """Convolutions with batch norm and dropout: ``[B, 2, 6, 6]`` to ``[B, 16]``."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.1))
            for c in (2, 4, 4)
        )
        self.top = nn.Linear(4 * 36, CLASSES)

    def block(self, channels: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(channels, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.1))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.top(x.flatten(1))


class ReluNet(nn.Module):
    """Convolutions whose activation stands right below the point, in the channels-last layout."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()) for channels in (2, 8, 8)
        )
        self.top = nn.Linear(8 * 36, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            x = block(x)
        return self.top(x.flatten(1))


class PreNorm(nn.Module):
    """A Transformer whose residual stream goes around the points inside its blocks: ``[B, 5, 16]`` to the same."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            self.attention = nn.MultiheadAttention(WIDTH, 2, dropout=0.1, batch_first=True)
            self.up, self.act, self.down = nn.Linear(WIDTH, 32), nn.GELU(), nn.Linear(32, WIDTH)
            self.dropout = nn.Dropout(0.1)

        def forward(self, x: Tensor) -> Tensor:
            h = self.ln_1(x)
            x = x + self.dropout(self.attention(h, h, h, need_weights=False)[0])
            return x + self.dropout(self.down(self.act(self.up(self.ln_2(x)))))

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(self.Block() for _ in range(3))
        self.body, self.top = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.top(self.body(x))


MICRO = ["blocks.*.ln_1", "blocks.*.ln_2", "blocks.*.act", "blocks.*"]
