"""The five click models of arXiv 2006.12878 (Table 2): FM, DeepFM, DCN, AutoInt and AFN.

Every model is written once, and does not mention the training method. A `DFALayer` marks each feedback point of the
code release; it does nothing until `tinydfa.attach` is called on the model.

A model maps category ids ``[B, F]`` of F fields to logits of a click ``[B, 1]``. `embedding_point` is where the
embeddings enter the hidden layers; `recsys.training` decides what they learn from there.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recsys.models.cross import CrossNetwork
from recsys.models.embeddings import FieldRows, LinearTerm, embedding_table
from recsys.models.layers import LogarithmicLayer, SelfAttention, pairwise_products, perceptron
from recsys.preset import Preset
from tinydfa import DFALayer


class FM(nn.Module):
    """Factorisation machine (Rendle 2010): linear and pairwise terms, no hidden layer."""

    def __init__(self, preset: Preset, field_dims: Sequence[int]) -> None:
        super().__init__()
        categories, sparse = sum(field_dims), preset.sparse_embeddings
        self.rows = FieldRows(field_dims)
        self.linear = LinearTerm(categories, preset.linear_std, sparse)
        self.embedding = embedding_table(categories, preset.embed, sparse)

    def forward(self, fields: Tensor) -> Tensor:
        """``[B, F] -> [B, 1]``."""
        rows = self.rows(fields)
        return self.linear(rows) + pairwise_products(self.embedding(rows))


class DeepFM(nn.Module):
    """A factorisation machine and a perceptron on the same embeddings (Guo et al. 2017)."""

    def __init__(self, preset: Preset, field_dims: Sequence[int]) -> None:
        super().__init__()
        categories, sparse = sum(field_dims), preset.sparse_embeddings
        self.rows = FieldRows(field_dims)
        self.linear = LinearTerm(categories, preset.linear_std, sparse)
        self.embedding = embedding_table(categories, preset.embed, sparse)
        self.embedding_point = DFALayer()
        self.mlp = perceptron(len(field_dims) * preset.embed, preset.mlp, preset.dropout)
        self.top = nn.Linear(preset.mlp[-1], 1)

    def forward(self, fields: Tensor) -> Tensor:
        """``[B, F] -> [B, 1]``."""
        rows = self.rows(fields)
        vectors = self.embedding(rows)
        deep = self.top(self.mlp(self.embedding_point(vectors.flatten(1))))
        return self.linear(rows) + pairwise_products(vectors) + deep


class DCN(nn.Module):
    """A cross network and a perceptron in parallel (Wang et al. 2017)."""

    def __init__(self, preset: Preset, field_dims: Sequence[int]) -> None:
        super().__init__()
        width = len(field_dims) * preset.embed
        self.rows = FieldRows(field_dims)
        self.embedding = embedding_table(sum(field_dims), preset.embed, preset.sparse_embeddings)
        self.embedding_point = DFALayer()
        self.cross = CrossNetwork(width, preset.cross_layers)
        self.mlp = perceptron(width, preset.mlp, preset.dropout)
        self.stack_point = DFALayer()
        self.top = nn.Linear(width + preset.mlp[-1], 1)

    def forward(self, fields: Tensor) -> Tensor:
        """``[B, F] -> [B, 1]``."""
        x = self.embedding_point(self.embedding(self.rows(fields)).flatten(1))
        return self.top(self.stack_point(torch.cat([self.cross(x), self.mlp(x)], dim=1)))


class AutoInt(nn.Module):
    """Self-attention over fields, in parallel with a perceptron and a linear term (Song et al. 2019)."""

    def __init__(self, preset: Preset, field_dims: Sequence[int]) -> None:
        super().__init__()
        categories, sparse = sum(field_dims), preset.sparse_embeddings
        width = preset.attention
        self.rows = FieldRows(field_dims)
        self.linear = LinearTerm(categories, preset.linear_std, sparse)
        self.embedding = embedding_table(categories, preset.embed, sparse)
        self.embedding_point = DFALayer()
        self.widen = nn.Linear(preset.embed, width)
        self.widen_point = DFALayer()
        layers = range(preset.attention_layers)
        self.attention = nn.ModuleList(SelfAttention(width, preset.heads, preset.dropout) for _ in layers)
        self.attention_points = nn.ModuleList(DFALayer() for _ in layers[1:])
        self.residual = nn.Linear(preset.embed, width)
        self.cross_point = DFALayer()
        self.cross_top = nn.Linear(len(field_dims) * width, 1)
        self.mlp = perceptron(len(field_dims) * preset.embed, preset.mlp, preset.dropout)
        self.top = nn.Linear(preset.mlp[-1], 1)

    def forward(self, fields: Tensor) -> Tensor:
        """``[B, F] -> [B, 1]``."""
        rows = self.rows(fields)
        vectors = self.embedding_point(self.embedding(rows))
        crossed = self.widen_point(self.widen(vectors))
        for attention, point in zip(self.attention, [*self.attention_points, nn.Identity()], strict=True):
            crossed = point(attention(crossed))
        crossed = self.cross_point(torch.relu(crossed + self.residual(vectors)).flatten(1))
        return self.linear(rows) + self.cross_top(crossed) + self.top(self.mlp(vectors.flatten(1)))


class AFN(nn.Module):
    """A perceptron on products of any order, from logarithmic neurons (Cheng et al. 2020), and a linear term."""

    def __init__(self, preset: Preset, field_dims: Sequence[int]) -> None:
        super().__init__()
        categories, sparse = sum(field_dims), preset.sparse_embeddings
        self.rows = FieldRows(field_dims)
        self.linear = LinearTerm(categories, preset.linear_std, sparse)
        self.embedding = embedding_table(categories, preset.embed, sparse)
        self.embedding_point = DFALayer()
        self.logarithmic = LogarithmicLayer(len(field_dims), preset.neurons)
        self.logarithmic_point = DFALayer()
        self.mlp = perceptron(preset.neurons * preset.embed, preset.mlp, preset.dropout)
        self.top = nn.Linear(preset.mlp[-1], 1)

    def forward(self, fields: Tensor) -> Tensor:
        """``[B, F] -> [B, 1]``."""
        rows = self.rows(fields)
        powers = self.logarithmic(self.embedding_point(self.embedding(rows)))
        return self.linear(rows) + self.top(self.mlp(self.logarithmic_point(powers)))


def build_model(preset: Preset, field_dims: Sequence[int]) -> nn.Module:
    """The model of a preset, with fresh weights from torch's global generator."""
    models = {"fm": FM, "deepfm": DeepFM, "dcn": DCN, "autoint": AutoInt, "afn": AFN}
    return models[preset.model](preset, field_dims)
