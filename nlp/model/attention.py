"""Causal self-attention of four kinds: each position mixes values of itself and the positions before it.

Letters: B sequences of T tokens, T at most L; d width of the model, H heads of width h = d / H.

    standard   softmax(Q K^T / sqrt(h)) V                       Vaswani et al. 2017
    fixed      P V, P the four patterns of `fixed_patterns`     Raganato et al. 2020, arXiv 2002.10260
    dense      softmax(relu(x W1 + b1) W2 + b2) V, by head      Tay et al. 2020, arXiv 2005.00743
    random     softmax(R) V, R learned, the same for all texts  Tay et al. 2020

Source of the family: code release of arXiv 2006.12878, `attention.py`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlp.model.dropout import dropout as dropped

PATTERNS = 4  # of `fixed`, a quarter of the width each


class StandardAttention(nn.Module):
    """Scaled dot products; queries, keys and values from one matrix product.

    Args:
        width: d.
        heads: H, a divisor of d.
        dropout: Of attention weights.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.qkv.weight)  # as one matrix, like torch's own packed projection
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, d] -> [B, T, d]``."""
        batch, length, width = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        if dropout > 0 and x.device.type == "cpu":
            mixed = mixed_on_cpu(qkv, dropout)
        else:
            q, k, v = qkv
            mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return out


class FixedAttention(nn.Module):
    """Four fixed patterns over positions; only the values are learned. No heads, no output projection.

    Args:
        width: d, a multiple of four.
        length: L.
    """

    patterns: Tensor

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        self.value = nn.Linear(width, width)
        self.register_buffer("patterns", fixed_patterns(length), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, d] -> [B, T, d]``."""
        length = x.shape[1]
        values = self.value(x).unflatten(-1, (PATTERNS, -1)).transpose(1, 2)
        return (self.patterns[:, :length, :length].to(values.dtype) @ values).transpose(1, 2).flatten(2)


class DenseSynthesizer(nn.Module):
    """Every token computes its own row of attention scores, independently of the others.

    Args:
        width: d.
        heads: H, a divisor of d.
        dropout: Of attention weights.
        length: L, the number of scores of a row.
    """

    def __init__(self, width: int, heads: int, dropout: float, length: int) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        head = width // heads
        hidden = max(head, length)
        self.inputs = nn.Linear(width, 2 * width)  # what the scores are computed from, and the values
        self.hidden, self.hidden_bias = matrices(heads, head, hidden), nn.Parameter(torch.zeros(heads, 1, hidden))
        self.scores, self.scores_bias = matrices(heads, hidden, length), nn.Parameter(torch.zeros(heads, 1, length))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, d] -> [B, T, d]``."""
        length = x.shape[1]
        u, v = self.inputs(x).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        hidden = F.relu(u @ self.hidden + self.hidden_bias)
        scores = hidden @ self.scores[..., :length] + self.scores_bias[..., :length]
        return mixed_values(scores, v, self.out, self.dropout if self.training else 0.0)


class RandomSynthesizer(nn.Module):
    """Attention scores are parameters, ``[H, L, L]``; arguments as for `DenseSynthesizer`."""

    def __init__(self, width: int, heads: int, dropout: float, length: int) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.scores = matrices(heads, length, length)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, d] -> [B, T, d]``."""
        length = x.shape[1]
        v = self.value(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return mixed_values(self.scores[:, :length, :length], v, self.out, self.dropout if self.training else 0.0)


def build_attention(kind: str, width: int, heads: int, dropout: float, length: int) -> nn.Module:
    """Attention of a kind, "standard", "fixed", "dense" or "random"; for the arguments see the classes."""
    match kind:
        case "standard":
            return StandardAttention(width, heads, dropout)
        case "fixed":
            return FixedAttention(width, length)
        case "dense":
            return DenseSynthesizer(width, heads, dropout, length)
        case _:
            return RandomSynthesizer(width, heads, dropout, length)


def fixed_patterns(length: int) -> Tensor:
    """Attention weights of position i for position j, ``[4, L, L]``; every row adds up to 1.

    Itself, j = i; the one before, j = i - 1; all before i - 2 equally; all before i - 2 in proportion to (j + 1)^3, so
    that nearer ones count more. A position without any of those attends to the first.

    Example:
        >>> fixed_patterns(5)[:, 4].tolist()[2:]
        [[0.5, 0.5, 0.0, 0.0, 0.0], [0.1111111119389534, 0.8888888955116272, 0.0, 0.0, 0.0]]
    """
    j = torch.arange(length)
    i = j[:, None]
    past = (j < i - 2) | ((j == 0) & (i <= 2))
    patterns = torch.stack([j == i, j == (i - 1).clamp_min(0), past, past * (j + 1) ** 3]).float()
    return patterns / patterns.sum(dim=2, keepdim=True)


def mixed_on_cpu(qkv: Tensor, dropout: float) -> Tensor:
    """`scaled_dot_product_attention` with dropout, for which torch has no fast CPU kernel.

    Args:
        qkv: Queries, keys and values, ``[3, B, H, T, h]``.
        dropout: Of attention weights.

    Returns:
        ``[B, H, T, h]``.
    """
    _, batch, heads, length, head = qkv.shape
    q, k, v = qkv.reshape(3, batch * heads, length, head)
    scores = torch.baddbmm(causal_mask(length, q), q, k.transpose(1, 2), alpha=head**-0.5)
    return (dropped(scores.softmax(dim=-1), dropout, training=True) @ v).view(batch, heads, length, head)


def causal_mask(length: int, like: Tensor) -> Tensor:
    """The causal mask, added to scores, ``[T, T]``: minus infinity above the diagonal."""
    return torch.full((length, length), -math.inf, dtype=like.dtype, device=like.device).triu(1)


def mixed_values(scores: Tensor, v: Tensor, out: nn.Module, dropout: float) -> Tensor:
    """Softmax over the positions up to each one's own, of scores ``[B or none, H, T, T]``, applied to the values."""
    weights = (scores + causal_mask(scores.shape[-1], scores)).softmax(dim=-1)
    mixed = dropped(weights, dropout, training=True) @ v
    result: Tensor = out(mixed.transpose(1, 2).flatten(2))
    return result


def matrices(heads: int, inputs: int, outputs: int) -> nn.Parameter:
    """A matrix for every head, ``[H, inputs, outputs]``, from He's uniform distribution for each of them."""
    bound = math.sqrt(6 / inputs)
    return nn.Parameter(torch.empty(heads, inputs, outputs).uniform_(-bound, bound))
