"""Citation graphs by name, with the features and the split that an experiment asks for."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from graphs.graph import Graph
from graphs.planetoid import NAMES, read_planetoid
from graphs.sparse import SparseMatrix
from graphs.synthetic import synthetic_citations
from harness.errors import UserError

DATASETS = (*NAMES, "synthetic")


def load_graph(
    dataset: str,
    data_dir: Path | None = None,
    *,
    normalise_features: bool = True,
    five_folds: bool = False,
    seed: int = 0,
) -> Graph:
    """Read a citation graph.

    Args:
        dataset: "cora", "citeseer" or "pubmed" (found or downloaded, see `harness.data.fetch`), or "synthetic".
        data_dir: The data root, only read; None: `$DFA_DATA`, else the user's cache folder.
        normalise_features: Divide each node's features by their sum; nodes without features stay zero.
        five_folds: Split all nodes by `stratified_folds` in place of the public split (20 nodes a class, 500, 1,000).
        seed: Decides the folds; the public split has none.

    Raises:
        UserError: an unknown name, or a file that is missing or not the published one.
    """
    if dataset not in DATASETS:
        raise UserError(f"--dataset {dataset}: no such data set. There are {', '.join(DATASETS)}.")
    x, edge_index, y, masks = synthetic_citations() if dataset == "synthetic" else read_planetoid(dataset, data_dir)
    if normalise_features:
        x = x / x.sum(dim=1, keepdim=True).clamp(min=1.0)
    public = [masks[name].nonzero().squeeze(1) for name in ("train", "val", "test")]
    parts = stratified_folds(y, seed) if five_folds else public
    train, val, test = parts
    return Graph(
        name=dataset,
        x=SparseMatrix.from_dense(x),
        edge_index=edge_index,
        y=y,
        classes=int(y.max()) + 1,
        train=train,
        val=val,
        test=test,
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
