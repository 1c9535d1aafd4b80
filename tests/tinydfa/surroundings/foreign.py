"""Models as other libraries write them, none of which knows the library: a ResNet and a Transformer, small."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.tinydfa.nets import fill


class BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(out)) + identity)


class ResNet(nn.Module):
    """As torchvision writes it, smaller."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(True)
        self.layer1 = nn.Sequential(BasicBlock(4, 4, 1), BasicBlock(4, 4, 1))
        self.layer2 = nn.Sequential(BasicBlock(4, 6, 2), BasicBlock(6, 6, 1))
        self.layer3, self.layer4 = nn.Sequential(BasicBlock(6, 8, 2)), nn.Sequential(BasicBlock(8, 10, 2))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


class Output(OrderedDict):
    """A mapping with attributes, as transformer libraries return."""

    def __getattr__(self, name: str) -> Tensor:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Block(nn.Module):
    """Pre-norm attention and feed-forward; returns a tuple with the hidden states first."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, h: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        q, k, v = self.qkv(self.norm(h)).chunk(3, dim=-1)
        weights = (q @ k.transpose(1, 2) / h.shape[-1] ** 0.5).softmax(-1)
        h = h + self.out(weights @ v)
        return h + self.down(F.gelu(self.up(h))), weights


class Transformer(nn.Module):
    def __init__(self, returns: str = "mapping") -> None:
        super().__init__()
        self.returns = returns
        self.embed = nn.Embedding(11, 6)
        self.layers = nn.ModuleList(Block(6, inner) for inner in (9, 7, 5))
        self.lm_head = nn.Linear(6, 11)
        fill(self, torch.Generator().manual_seed(2))

    def forward(self, ids: Tensor, labels: Tensor | None = None) -> Output | tuple:
        h, attentions = self.embed(ids), []
        for layer in self.layers:
            h, weights = layer(h)
            attentions.append(weights)
        logits = self.lm_head(h)
        if labels is not None:
            return Output(loss=F.cross_entropy(logits.flatten(0, 1), labels.flatten()), logits=logits)
        if self.returns == "tuple":
            return logits, attentions
        return Output(logits=logits, attentions=attentions)
