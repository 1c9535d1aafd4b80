"""Citation graphs by name, with the features and the split that an experiment asks for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from graphs.data.graph import Graph
from graphs.data.own import draw_split, read_graph
from graphs.data.planetoid import NAMES, read_planetoid
from graphs.data.sparse import SparseMatrix
from graphs.data.synthetic import synthetic_citations
from harness.errors import UserError
from harness.files import name_of

DATASETS = (*NAMES, "synthetic")
FOLDS = 5


def load_graph(
    dataset: str,
    data_dir: Path | None = None,
    *,
    normalise_features: bool = True,
    five_folds: bool = False,
    seed: int = 0,
    file: Path | None = None,
) -> Graph:
    """Read a citation graph, or one's own.

    Args:
        dataset: "cora", "citeseer" or "pubmed" (found or downloaded, see `harness.data.fetch`), or "synthetic".
        data_dir: The data root, only read; None: `$DFA_DATA`, else the user's cache folder.
        normalise_features: Divide each node's features by their sum; nodes without features stay zero.
        five_folds: Split all nodes by `stratified_folds` in place of the public split (20 nodes a class, 500, 1,000).
        seed: Decides the folds; the public split has none. Also the split of a `file` without one.
        file: A graph of one's own in place of `dataset`, see `graphs.data.own`.

    Raises:
        UserError: an unknown name, or a file that is missing or not the published one.
    """
    x, edge_index, y, public = _named(dataset, data_dir) if file is None else _own(file, seed)
    if normalise_features and x.min() >= 0:
        x = x / x.sum(dim=1, keepdim=True).clamp(min=1.0)
    if five_folds and file is not None:
        _check_folds(file, y)
    train, val, test = stratified_folds(y, seed) if five_folds else public
    return Graph(
        name=dataset if file is None else name_of(file, "graph"),
        x=SparseMatrix.from_dense(x),
        edge_index=edge_index,
        y=y,
        classes=int(y.max()) + 1,
        train=train,
        val=val,
        test=test,
    )


Parts = tuple[Tensor, Tensor, Tensor, Sequence[Tensor]]  # features, edges, classes; nodes to train, validate and test


def _named(dataset: str, data_dir: Path | None) -> Parts:
    if dataset not in DATASETS:
        raise UserError(f"--dataset {dataset}: no such data set. There are {', '.join(DATASETS)}.")
    x, edge_index, y, masks = synthetic_citations() if dataset == "synthetic" else read_planetoid(dataset, data_dir)
    return x, edge_index, y, [masks[name].nonzero().squeeze(1) for name in ("train", "val", "test")]


def _own(file: Path, seed: int) -> Parts:
    own = read_graph(file)
    return own.x, own.edge_index, own.y, own.split or draw_split(own.y, seed)


def _check_folds(file: Path, y: Tensor) -> None:
    """Raise for a graph whose nodes cannot be dealt to five folds."""
    counts = torch.bincount(y.clamp(min=0))
    if bool((y < 0).any()) or int(counts[counts > 0].min()) < FOLDS:
        raise UserError(
            f"{file}: the preset trains on {FOLDS} folds of all nodes, and a node has no class, or a class fewer than "
            f"{FOLDS} nodes. Use a --model with the file's own split, such as gcn."
        )


def stratified_folds(y: Tensor, seed: int) -> list[Tensor]:
    """Five folds with equal shares of every class: node ids of one for training, one for validation, three for tests.

    As the published code does for DNAConv (scikit-learn's shuffled StratifiedKFold); the parts are disjoint and cover
    all nodes.
    """
    from sklearn.model_selection import StratifiedKFold

    folds = StratifiedKFold(5, shuffle=True, random_state=seed).split(y.numpy(), y.numpy())
    first, second, *others = (torch.from_numpy(held_out) for _, held_out in folds)
    return [first, second, torch.cat(others).sort().values]
