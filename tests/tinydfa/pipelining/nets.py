"""A small net of unequal widths, cut into stages of unequal length."""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

WIDTHS = (6, 9, 7, 8, 4, 5, 3)
POINTS = ("1", "3", "5", "7", "9")  # after every tanh
CUTS = {1: (0, 11), 2: (0, 6, 11), 3: (0, 2, 8, 11), 4: (0, 2, 4, 8, 11)}


def net(seed=0):
    """Linear and tanh in turn, in float64; modules 0 to 10."""
    torch.manual_seed(seed)
    layers = []
    for width, after in pairwise(WIDTHS):
        layers += [nn.Linear(width, after), nn.Tanh()]
    return nn.Sequential(*layers[:-1]).double()


def stage_of(model, stages, stage):
    """A slice keeps the names of the whole."""
    cuts = CUTS[stages]
    return model[cuts[stage] : cuts[stage + 1]]


def points_of(module):
    return [name for name, _ in module.named_children() if name in POINTS]


def data(batch=12, steps=3):
    torch.manual_seed(5)
    return [(torch.randn(batch, 6).double(), torch.randint(0, 3, (batch,))) for _ in range(steps)]


def mean(output, target):
    return F.cross_entropy(output, target)


def total(output, target):
    return F.cross_entropy(output, target, reduction="sum")
