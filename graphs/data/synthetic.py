"""An embedded graph that looks like Cora, for runs that need no download.

A contextual stochastic block model with corrected degrees: Cora's class sizes, 5,278 undirected edges of which about
81 % join nodes of one class, a heavy-tailed degree distribution without isolated nodes, and about 18 of 1,433 binary
words a node, some drawn from the words of its topic (mostly that of its class), the others from all by popularity.
The shares were chosen so that a graph convolution scores about what it scores on Cora. Not a sample of any real data.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

CLASS_SIZES = (351, 217, 418, 818, 426, 298, 180)  # as in Cora
EDGES = 5278  # undirected
WORDS = 1433
SAME_CLASS = 0.82  # chance that an edge is drawn within a class
TOPIC_SHARE = 0.40  # chance that a word is drawn from the words of the node's topic
TOPIC_WORDS = 60  # words of a topic; there is one topic per class
OFF_TOPIC = 0.38  # chance that a node's topic is drawn at random and not that of its class


def synthetic_citations(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
    """Draw the graph; the same seed gives the same graph on every machine.

    Returns:
        Binary features ``[2708, 1433]``, directed edges ``[2, 10556]`` sorted by source, classes ``[2708]``, and masks
        "train" (20 nodes a class), "val" (500 nodes) and "test" (1,000 nodes).
    """
    generator = np.random.default_rng([20061, seed])
    y = generator.permutation(np.repeat(np.arange(len(CLASS_SIZES)), CLASS_SIZES))
    edges = _edges(generator, y)
    x = _words(generator, y)
    both = np.concatenate([edges, edges[::-1]], axis=1)
    both = both[:, np.lexsort(both[::-1])]
    masks = {name: torch.from_numpy(mask) for name, mask in _split(generator, y).items()}
    return torch.from_numpy(x), torch.from_numpy(both), torch.from_numpy(y), masks


def _edges(generator: np.random.Generator, y: np.ndarray) -> np.ndarray:
    """Distinct undirected edges ``[2, EDGES]``, smaller node first; every node has one."""
    fame = generator.pareto(1.7, size=y.size) + 0.3  # how often a node is cited, relative
    count = EDGES * 3
    source = np.concatenate([np.arange(y.size), _draw(generator, fame, count)])
    within = generator.random(source.size) < SAME_CLASS
    target = _draw(generator, fame, source.size)
    for label in range(len(CLASS_SIZES)):
        mine = y[source] == label
        target[mine & within] = _draw(generator, fame * (y == label), int((mine & within).sum()))
        target[mine & ~within] = _draw(generator, fame * (y != label), int((mine & ~within).sum()))
    target = np.where(source == target, (source + 1) % y.size, target)
    code = np.minimum(source, target) * y.size + np.maximum(source, target)
    _, first = np.unique(code, return_index=True)
    code = code[np.sort(first)][:EDGES]
    return np.stack([code // y.size, code % y.size])


def _draw(generator: np.random.Generator, weight: np.ndarray, count: int) -> np.ndarray:
    """`count` indices, each with a chance proportional to its weight."""
    cumulative = weight.cumsum()
    return np.searchsorted(cumulative, generator.random(count) * cumulative[-1], side="right")


def _words(generator: np.random.Generator, y: np.ndarray) -> np.ndarray:
    """Binary features ``[N, WORDS]``."""
    popularity = 1.0 / (np.arange(WORDS) + 8.0)
    length = np.clip(generator.normal(19.5, 5.5, size=y.size).round().astype(int), 2, 32)
    node = np.repeat(np.arange(y.size), length)
    word = _draw(generator, popularity, node.size)
    topical = generator.random(node.size) < TOPIC_SHARE
    about = np.where(generator.random(y.size) < OFF_TOPIC, generator.integers(0, len(CLASS_SIZES), y.size), y)
    for label in range(len(CLASS_SIZES)):
        topic = np.zeros(WORDS)
        chosen = generator.choice(WORDS, TOPIC_WORDS, replace=False)
        topic[chosen] = popularity[chosen] ** 0.5
        mine = topical & (about[node] == label)
        word[mine] = _draw(generator, topic, int(mine.sum()))
    x = np.zeros((y.size, WORDS), dtype=np.float32)
    x[node, word] = 1.0
    return x


def _split(generator: np.random.Generator, y: np.ndarray) -> dict[str, np.ndarray]:
    order = generator.permutation(y.size)
    train = np.concatenate([order[y[order] == label][:20] for label in range(len(CLASS_SIZES))])
    rest = order[~np.isin(order, train)]
    nodes = {"train": train, "val": rest[:500], "test": rest[500:1500]}
    return {name: np.isin(np.arange(y.size), chosen) for name, chosen in nodes.items()}
