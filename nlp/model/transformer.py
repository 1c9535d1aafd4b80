"""The language model: a post-norm causal Transformer with the feedback points of arXiv 2006.12878, written once.

    x = dropout(sqrt(d) embedding[tokens] + positions)
    x = norm1(x + dropout(attention(x)))                    in every block
    x = norm2(x + dropout(down(dropout(relu(up(x))))))
    logits = decoder(x)

`macro` has one feedback point a block, after it; `micro` three: after norm1, after up with its ReLU, after norm2. The
error is taken below the decoder (`hidden`: each token's gradient ``[d]``), below the last block's norm2 (`norm`:
``[d]`` as well; that block's last point then stands below its norm2, too) or above the decoder (`logits`:
``[vocabulary]``). The training method is chosen by `tinydfa.attach`; without it, and under backpropagation, points and
head do nothing.

Letters: B sequences of T tokens, d width, V tokens in the vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlp.model.attention import build_attention
from nlp.model.dropout import add_dropped, dropout, relu_dropout
from nlp.presets import Preset
from tinydfa import DFALayer, Head

INITIAL = 0.1  # weights of embedding and decoder lie within +- this


class Block(nn.Module):
    """One layer of the Transformer, ``[B, T, d] -> [B, T, d]``."""

    def __init__(self, preset: Preset, top: bool = False) -> None:
        super().__init__()
        self.takes_error = top and preset.error_at == "norm"
        width, micro = preset.d_model, preset.granularity == "micro"
        self.dropout = preset.dropout
        self.attention = build_attention(preset.attention, width, preset.heads, preset.dropout, preset.chunk)
        self.up, self.down = nn.Linear(width, preset.d_ff), nn.Linear(preset.d_ff, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.point1 = DFALayer() if micro else nn.Identity()
        self.point2 = DFALayer() if micro else nn.Identity()
        self.point = DFALayer()

    def forward(self, x: Tensor, take: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """
        Args:
            x: ``[B, T, d]``.
            take: Takes the error, below the last norm of this block; None: that is done elsewhere.
        """
        rate, training = self.dropout, self.training
        x = self.point1(self.norm1(add_dropped(x, self.attention(x), rate, training)))
        hidden = self.point2(relu_dropout(self.up(x), rate, training))
        added = add_dropped(x, self.down(hidden), rate, training)
        out: Tensor = self.point(self.norm2(added)) if take is None else self.norm2(take(self.point(added)))
        return out


class LanguageModel(nn.Module):
    """Logits of the next token at every position.

    Args:
        vocabulary: V.
        preset: Its sizes; `chunk` is the longest sequence.

    Example:
        >>> preset = Preset(method="bp", layers=2, d_model=8, d_ff=16, heads=2, chunk=5)
        >>> LanguageModel(11, preset)(torch.zeros(3, 5, dtype=torch.int64)).shape
        torch.Size([3, 5, 11])
    """

    positions: Tensor

    def __init__(self, vocabulary: int, preset: Preset) -> None:
        super().__init__()
        width = preset.d_model
        self.length, self.dropout = preset.chunk, preset.dropout
        self.error_at, self.projects_last = preset.error_at, preset.last_block == "projected"
        self.embedding = nn.Embedding(vocabulary, width)
        self.register_buffer("positions", sinusoids(preset.chunk, width), persistent=False)
        self.point = DFALayer() if preset.points_embedding else nn.Identity()
        self.blocks = nn.ModuleList(Block(preset, top=n == preset.layers) for n in range(1, preset.layers + 1))
        self.decoder = nn.Linear(width, vocabulary, bias=not preset.tied)
        points = [module for module in self.modules() if isinstance(module, DFALayer)]  # from below to above
        self.head = Head(points)
        nn.init.uniform_(self.embedding.weight, -INITIAL, INITIAL)
        if preset.tied:
            self.decoder.weight = self.embedding.weight
        else:
            nn.init.uniform_(self.decoder.weight, -INITIAL, INITIAL)
            nn.init.zeros_(self.decoder.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """``[B, T]`` int64 to ``[B, T, V]``.

        Raises:
            ValueError: T is longer than the model was built for.
        """
        length = tokens.shape[1]
        if length > self.length:
            raise ValueError(f"a sequence of {length} tokens, and the model was built for {self.length} at most")
        return self.logits(self.through(self.blocks, self.embedded(tokens)))

    def embedded(self, tokens: Tensor) -> Tensor:
        """Input of the first block, ``[B, T, d]``."""
        x = self.point(self.embedding(tokens) * math.sqrt(self.positions.shape[1]))
        return dropout(x + self.positions[: tokens.shape[1]], self.dropout, self.training)

    def through(self, blocks: Iterable[nn.Module], x: Tensor) -> Tensor:
        """Output of the last of some blocks, from the input of the first."""
        for block in blocks:
            x = block(x, self.take) if block.takes_error else block(x)
        return x

    def logits(self, x: Tensor) -> Tensor:
        """Logits ``[B, T, V]``, from the output of the last block."""
        logits: Tensor = self.decoder(self.take(x) if self.error_at == "hidden" else x)
        return self.head(logits) if self.error_at == "logits" else logits

    def take(self, x: Tensor) -> Tensor:
        """Take the error at `x`, which the last block's point has just passed on: it gets its projection, or itself."""
        taken: Tensor = self.head(x.view_as(x) if self.projects_last else x)
        return taken


def sinusoids(length: int, width: int) -> Tensor:
    """Sines and cosines of positions in turn, ``[T, d]``: sin(t 10000^(-2i / d)) in column 2i, its cosine in 2i + 1.

    Source: Vaswani et al. 2017, section 3.5.
    """
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000) / width))
    angles = torch.arange(length)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Summed over the tokens that have a target, in nats.

    Args:
        logits: ``[B, T, V]``.
        targets: ``[B, T]`` int64, -100 where there is none.
    """
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
