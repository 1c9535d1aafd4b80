"""A small Transformer as people write their own, without a word about feedback points.

Letters: B sequences of T characters, d width, V characters in the vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, HEADS, LENGTH = 64, 4, 64


class Block(nn.Module):
    """Attention, then a perceptron, each with a residual; ``[B, T, d]``.

    Args:
        post_norm: The norms stand after the sums, as in the first Transformer; else before the layers, as in GPT-2.
    """

    def __init__(self, post_norm: bool) -> None:
        super().__init__()
        self.post_norm = post_norm
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.pack, self.unpack = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.attended = nn.Identity()
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def attention(self, x: Tensor) -> Tensor:
        split = (*x.shape[:2], HEADS, -1)
        query, key, value = (part.view(split).transpose(1, 2) for part in self.pack(x).chunk(3, dim=2))
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        out: Tensor = self.unpack(mixed.transpose(1, 2).flatten(2))
        return out

    def forward(self, x: Tensor) -> Tensor:
        if self.post_norm:
            x = self.attended(self.norm1(x + self.attention(x)))
            out: Tensor = self.norm2(x + self.mlp(x))
            return out
        x = self.attended(x + self.attention(self.norm1(x)))
        return x + self.mlp(self.norm2(x))


class CharacterModel(nn.Module):
    """Logits of the next character, ``[B, T]`` to ``[B, T, V]``: three blocks, a norm, a linear layer.

    Example:
        >>> CharacterModel(11)(torch.zeros(2, 5, dtype=torch.int64)).shape
        torch.Size([2, 5, 11])
    """

    def __init__(self, vocabulary: int, post_norm: bool = False, blocks: int = 3) -> None:
        super().__init__()
        self.characters, self.positions = nn.Embedding(vocabulary, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.ModuleList(Block(post_norm) for _ in range(blocks))
        self.norm = nn.LayerNorm(WIDTH)
        self.top = nn.Linear(WIDTH, vocabulary)

    def forward(self, x: Tensor) -> Tensor:
        h = self.characters(x) + self.positions(torch.arange(x.shape[1], device=x.device))
        for block in self.blocks:
            h = block(h)
        logits: Tensor = self.top(self.norm(h))
        return logits
