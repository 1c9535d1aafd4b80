"""The models that step times are measured on, written plainly so that backpropagation has nothing to complain about."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def mlp(*widths: int) -> nn.Sequential:
    """Linear and ReLU in turn; hidden activations are `1`, `3`, ... in the module."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Block(nn.Module):
    """Post-norm Transformer block with a feedback point's place after attention, feed-forward's first half and end."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.up = nn.Sequential(nn.Linear(width, hidden), nn.ReLU())
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = self.norm1(x + self.out(mixed.transpose(1, 2).reshape(batch, length, width)))
        return self.norm2(x + self.down(self.up(x)))


class PreNormBlock(nn.Module):
    """A block as GPT-2 and ViT have it: the norms stand before attention and feed-forward."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up = nn.Sequential(nn.Linear(width, hidden), nn.GELU(approximate="tanh"))
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(self.ln_1(x))
        q, k, v = qkv.view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(self.up(self.ln_2(x)))


class PreNormTransformer(nn.Module):
    """Causal language model of GPT-2's shape, ``[B, T]`` to ``[B, T, vocabulary]``."""

    def __init__(self, vocabulary: int = 8000, width: int = 512, blocks: int = 4, heads: int = 8) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(PreNormBlock(width, heads, 4 * width) for _ in range(blocks))
        self.ln_f, self.vocabulary = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.vocabulary(self.ln_f(x))
        return logits


class PostNormTransformer(nn.Module):
    """Causal language model ``[B, T]`` to ``[B, T, vocabulary]``; the error is taken before the vocabulary (`body`)."""

    def __init__(self, vocabulary: int = 8000, width: int = 512, blocks: int = 6, heads: int = 8) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(Block(width, heads, 4 * width) for _ in range(blocks))
        self.body = nn.Identity()
        self.vocabulary = nn.Linear(width, vocabulary)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.vocabulary(self.body(x))
        return logits


def loss(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy, nats per sample or token."""
    return F.cross_entropy(model(inputs).flatten(0, -2), targets.flatten())


def sgd_step(model: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, targets: Tensor) -> None:
    optimizer.zero_grad()
    loss(model, inputs, targets).backward()
    optimizer.step()
