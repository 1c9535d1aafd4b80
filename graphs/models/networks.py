"""The five node classifiers of arXiv 2006.12878 (Table 3) and the encoder of its graph auto-encoder (Table 4).

Every model is written once. A `DFALayer` marks each hidden layer where the code release has its feedback points: after
the activation, and in `Cheb` and `GCN` after the dropout too. Until something is attached to a model it is the plain
PyTorch model, trained by backpropagation; no training method appears here.

A model maps a `Graph` of N nodes and f features to logits ``[N, K]``, one row a node.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from graphs.data.graph import Graph, target_indegree
from graphs.models.dna import DNAConv
from graphs.models.layers import ChebConv, GATConv, GCNConv
from graphs.models.spline import SplineConv
from graphs.presets import Preset
from tinydfa import DFALayer


class TwoLayerNet(nn.Module):
    """Convolution, ReLU, dropout, convolution."""

    def __init__(self, conv1: nn.Module, conv2: nn.Module, dropout: float) -> None:
        super().__init__()
        self.conv1, self.conv2, self.dropout = conv1, conv2, dropout
        self.point1 = DFALayer()

    def hidden(self, graph: Graph) -> Tensor:
        """Activations of the hidden layer, ``[N, 16]``."""
        return F.relu(self.conv1(graph.x, graph))

    def forward(self, graph: Graph) -> Tensor:
        """``[N, K]``."""
        h = self.point1(F.dropout(self.hidden(graph), self.dropout, self.training))
        return self.conv2(h, graph)


class Cheb(TwoLayerNet):
    """Two Chebyshev convolutions of order K = 2 (constant and linear term)."""

    def __init__(self, features: int, classes: int, dropout: float) -> None:
        super().__init__(ChebConv(features, 16, K=2), ChebConv(16, classes, K=2), dropout)


class GCN(TwoLayerNet):
    """Two graph convolutions; "GraphConv" in the paper."""

    def __init__(self, features: int, classes: int, dropout: float) -> None:
        super().__init__(GCNConv(features, 16), GCNConv(16, classes), dropout)


class Spline(nn.Module):
    """Two spline convolutions with two knots along the in-degree of an edge's target."""

    def __init__(self, features: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.conv1 = SplineConv(features, 16, target_indegree)
        self.point1 = DFALayer()
        self.conv2 = SplineConv(16, classes, target_indegree)

    def forward(self, graph: Graph) -> Tensor:
        """``[N, K]``."""
        x = graph.x.dropout(self.dropout, self.training)
        h = self.point1(F.elu(self.conv1(x, graph)))
        return self.conv2(F.dropout(h, self.dropout, self.training), graph)


class GAT(nn.Module):
    """Attention with 8 heads of 8, then with one head, on every data set."""

    def __init__(
        self, features: int, classes: int, dropout: float, attention_dropout: float, top_attention_dropout: float
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.conv1 = GATConv(features, 8, heads=8, dropout=attention_dropout)
        self.point1 = DFALayer()
        self.conv2 = GATConv(64, classes, heads=1, dropout=top_attention_dropout)

    def forward(self, graph: Graph) -> Tensor:
        """``[N, K]``."""
        x = graph.x.dropout(self.dropout, self.training)
        h = self.point1(F.elu(self.conv1(x, graph)))
        return self.conv2(F.dropout(h, self.dropout, self.training), graph)


class DNA(nn.Module):
    """A linear layer of 128, five DNA layers that attend to all layers before them, a linear top; six points."""

    def __init__(self, features: int, classes: int, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.lin1 = nn.Linear(features, 128)
        self.point1 = DFALayer()
        self.convs = nn.ModuleList(DNAConv(128, heads=8, groups=16, dropout=attention_dropout) for _ in range(5))
        self.points = nn.ModuleList(DFALayer() for _ in range(5))
        self.lin2 = nn.Linear(128, classes)

    def forward(self, graph: Graph) -> Tensor:
        """``[N, K]``."""
        h = self.point1(F.relu(graph.x @ self.lin1.weight.t() + self.lin1.bias))
        layers = [F.dropout(h, self.dropout, self.training)]
        for conv, point in zip(self.convs, self.points, strict=True):
            layers.append(point(F.relu(conv(layers, graph))))
        return self.lin2(F.dropout(layers[-1], self.dropout, self.training))


class Encoder(nn.Module):
    """The encoder of a graph auto-encoder: graph convolutions to 32, then to an embedding of 16 per node."""

    def __init__(self, features: int, width: int = 16) -> None:
        super().__init__()
        self.conv1 = GCNConv(features, 2 * width)
        self.point1 = DFALayer()
        self.conv2 = GCNConv(2 * width, width)

    def forward(self, graph: Graph) -> Tensor:
        """``[N, width]``."""
        return self.conv2(self.point1(F.relu(self.conv1(graph.x, graph))), graph)


def build_model(preset: Preset, features: int, classes: int) -> nn.Module:
    """The model of a preset, with fresh weights from torch's global generator."""
    match preset.model:
        case "cheb":
            return Cheb(features, classes, preset.dropout)
        case "gcn":
            return GCN(features, classes, preset.dropout)
        case "spline":
            return Spline(features, classes, preset.dropout)
        case "gat":
            top = preset.top_attention_dropout
            return GAT(features, classes, preset.dropout, preset.attention_dropout, top)
        case "dna":
            return DNA(features, classes, preset.dropout, preset.attention_dropout)
        case _:
            raise ValueError(f"no model is called {preset.model!r}")
