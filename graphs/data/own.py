"""A graph of one's own, from a file that holds arrays and no code.

    .npz          x [N, f], edge_index [2, E], y [N], and perhaps train_mask, val_mask, test_mask [N]
    .npz          adj_indptr, adj_indices, attr_indptr ..., labels: compressed rows, as in PyG's Amazon and Coauthor
    .pt, .pth     PyG's `Data` by torch.save, a dict of the first kind, or the data.pt of one of PyG's data sets

Edges are read as undirected, without loops and repeats, as those of the citation graphs are. A negative class means
that a node has none. Without masks 20 nodes of each class are for training (half of a class that has fewer than 40), a
third of the others, at most 500, for validation, and of what is left at most 1,000 for tests, drawn by the seed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.data.arrays import read_arrays
from harness.errors import UserError
from harness.run.checkpoint import load_plain, why_unreadable

MASKS = ("train_mask", "val_mask", "test_mask")
DENSE = ("x", "edge_index", "y")
ROWS = ("adj_indptr", "adj_indices", "labels")
WEIGHTS = ("edge_attr", "edge_weight", "adj_data")
ATTRIBUTES = ("attr_data", "attr_indices", "attr_indptr", "attr_shape")
WAY_OUT = "Replace the file"
LAYOUT = "Give x [N, f], edge_index [2, E] and y [N]"
OTHER_SPLIT = re.compile(r"(train|val|valid|test)_(idx|index|indices)|idx_(train|val|test)|(valid|dev)_mask")
PER_CLASS, VAL, TEST = 20, 500, 1000


@dataclass(frozen=True)
class OwnGraph:
    """What a file holds: features ``[N, f]`` float32, undirected edges ``[2, E]``, classes ``[N]``, and a split."""

    x: Tensor
    edge_index: Tensor
    y: Tensor
    split: tuple[Tensor, Tensor, Tensor] | None  # node ids; None: the file has no masks


def read_graph(path: Path) -> OwnGraph:
    """Read a graph.

    Raises:
        UserError: there is no such file, it is damaged, or it holds something else; names the entry at fault.
    """
    if not path.is_file():
        raise UserError(f"--graph {path}: no such file. Give an .npz or a .pt file.")
    match path.suffix.lower():
        case ".npz":
            found = _read_npz(path)
        case ".pt" | ".pth":
            found = _read_pt(path)
        case _:
            raise UserError(f"--graph {path}: not a kind that is read. Give an .npz or a .pt file.")
    x, y = _features(path, found["x"]), _classes(path, found["y"])
    if len(x) != len(y):
        raise UserError(f"{path} has features of {len(x):,} nodes and classes of {len(y):,}. {WAY_OUT}.")
    _refuse_weights(path, found)
    _refuse_other_splits(path, found)
    return OwnGraph(x, _edges(path, found["edge_index"], len(x)), y, _split(path, found, y))


def draw_split(y: Tensor, seed: int) -> list[Tensor]:
    """Nodes for training, validation and tests, by the rule that the module states, sorted.

    Raises:
        UserError: too few nodes have a class.
    """
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    order = order[y[order] >= 0]
    train = []
    for label in y[order].unique():
        mine = order[y[order] == label]
        train.append(mine[: min(PER_CLASS, max(1, len(mine) // 2))])
    chosen = torch.cat(train)
    rest = order[~torch.isin(order, chosen)]
    val = rest[: min(VAL, len(rest) // 3)]
    test = rest[len(val) :][:TEST]
    if not len(val):
        raise UserError(f"{len(order)} nodes with a class are too few to draw a split from. Give masks, or more nodes.")
    return [part.sort().values for part in (chosen, val, test)]


def _read_npz(path: Path) -> dict[str, Any]:
    def choose(present: list[str]) -> Sequence[str]:
        _refuse_other_splits(path, present)
        if set(DENSE) <= set(present):
            return [name for name in (*DENSE, *MASKS, *WEIGHTS) if name in present]
        if set(ROWS) <= set(present):
            known = (*ROWS, *ATTRIBUTES, "attr_matrix", "adj_data", "adj_shape", *MASKS)
            return [name for name in known if name in present]
        raise UserError(f"{path} holds {', '.join(present) or 'nothing'}. {LAYOUT}.")

    found: dict[str, Any] = read_arrays(path, choose, WAY_OUT)
    return found if "x" in found else _from_rows(path, found)


def _from_rows(path: Path, found: dict[str, Any]) -> dict[str, Any]:
    """Features, edges and classes from matrices in compressed rows."""
    nodes = len(found["adj_indptr"]) - 1
    ones = np.ones(len(found["adj_indices"]))
    adjacency = _matrix(path, "adj", ones, found["adj_indices"], found["adj_indptr"], (nodes, nodes)).tocoo()
    if "attr_matrix" in found:
        x = found["attr_matrix"]
    elif set(ATTRIBUTES) <= set(found):
        data, indices, indptr, shape = (found[name] for name in ATTRIBUTES)
        x = _matrix(path, "attr", data, indices, indptr, tuple(shape.tolist())).toarray()
    else:
        raise UserError(f"{path} lacks features: attr_matrix, or {', '.join(ATTRIBUTES)}. {WAY_OUT}.")
    edges = np.stack([adjacency.row, adjacency.col])
    others = {name: found[name] for name in (*MASKS, *WEIGHTS) if name in found}
    return others | {"x": x, "edge_index": edges, "y": found["labels"]}


def _matrix(path: Path, name: str, data: Any, indices: Any, indptr: Any, shape: Any) -> Any:
    """A sparse matrix, its parts checked against one another."""
    from scipy.sparse import csr_matrix

    try:
        matrix = csr_matrix((data, indices, indptr), shape=shape)
        matrix.check_format(full_check=True)
    except (ValueError, TypeError, IndexError, OverflowError, MemoryError) as error:
        raise UserError(f"{path}: {name}_indptr and {name}_indices are no matrix ({error}). {WAY_OUT}.") from error
    return matrix


def _read_pt(path: Path) -> dict[str, Any]:
    """What torch.save wrote, of which PyG's containers and tensors alone are opened."""
    from torch_geometric.data import Data
    from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
    from torch_geometric.data.storage import GlobalStorage

    try:
        content = load_plain(path, (Data, DataEdgeAttr, DataTensorAttr, GlobalStorage))
    except Exception as error:
        way_out = "Save the graph by torch.save(data.to_dict(), ...)"
        cause = f"cannot be read without running code from it, or is damaged ({why_unreadable(error)})"
        raise UserError(f"{path} {cause}. {way_out}.") from error
    if isinstance(content, tuple) and len(content) >= 2:  # of a data set: the entries, where each graph begins, a class
        content, borders = content[:2]
        if isinstance(borders, dict) and any(len(border) > 2 for border in borders.values()):
            raise UserError(f"{path} holds several graphs. Save one of them.")
    found = content.to_dict() if isinstance(content, Data) else content
    if not isinstance(found, dict) or not set(DENSE) <= set(found):
        holds = ", ".join(map(str, found)) if isinstance(found, dict) else f"a {type(found).__name__}"
        raise UserError(f"{path} holds {holds or 'nothing'}. {LAYOUT}.")
    return found


def _array(path: Path, name: str, value: Any) -> np.ndarray:
    """An entry as an array of numbers."""
    try:
        if isinstance(value, Tensor):
            value = (value.to_dense() if value.layout != torch.strided else value).detach().cpu().numpy()
    except (RuntimeError, TypeError) as error:
        raise UserError(f"{path}: {name} is a tensor that cannot be read ({error}). {WAY_OUT}.") from error
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        kind = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise UserError(f"{path}: {name} is {kind}, where numbers are expected. {LAYOUT}.")
    return value


def _shaped(path: Path, name: str, array: np.ndarray, wanted: str) -> UserError:
    shape = ", ".join(map(str, array.shape))
    return UserError(f"{path}: {name} has the shape [{shape}] and type {array.dtype}, where {wanted}. {WAY_OUT}.")


def _features(path: Path, value: Any) -> Tensor:
    x = _array(path, "x", value)
    if x.ndim != 2 or x.size == 0:
        raise _shaped(path, "x", x, "features are [N, f]")
    with np.errstate(over="ignore"):
        x = x.astype(np.float32)
    if not np.isfinite(x).all():
        node = int((~np.isfinite(x)).any(axis=1).argmax())
        raise UserError(f"{path}: x of node {node} holds a number that is not finite in float32. {WAY_OUT}.")
    return torch.from_numpy(x)


def _classes(path: Path, value: Any) -> Tensor:
    y = _array(path, "y", value)
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise _shaped(path, "y", y, "classes are whole numbers [N]")
    if len(np.unique(y[y >= 0])) < 2 or y.max() >= len(y):
        raise UserError(
            f"{path}: y has classes up to {y.max()} for {len(y):,} nodes. Number them from 0; two at least."
        )
    return torch.from_numpy(y.astype(np.int64))


def _edges(path: Path, value: Any, nodes: int) -> Tensor:
    """Distinct edges between different nodes, both ways, sorted."""
    edges = _array(path, "edge_index", value)
    if edges.ndim != 2 or edges.shape[0] != 2 or edges.dtype.kind not in "iu":
        raise _shaped(path, "edge_index", edges, "edges are whole numbers [2, E]")
    if edges.size and not (edges.min() >= 0 and edges.max() < nodes):
        wrong = edges.min() if edges.min() < 0 else edges.max()
        raise UserError(f"{path}: edge_index names node {wrong}, and there are {nodes:,}, from 0. {WAY_OUT}.")
    source, target = edges.astype(np.int64)
    joined = source != target
    codes = np.unique(np.concatenate([source * nodes + target, target * nodes + source])[np.tile(joined, 2)])
    if not len(codes):
        raise UserError(f"{path}: edge_index joins no two nodes. {WAY_OUT}.")
    return torch.from_numpy(np.stack([codes // nodes, codes % nodes]))


def _refuse_weights(path: Path, found: dict[str, Any]) -> None:
    """Raise for edges of different weight: no model here would use them."""
    for name in WEIGHTS:
        value = found.get(name)
        if value is not None and not (_array(path, name, value) == 1).all():
            raise UserError(f"{path}: {name} gives edges weights, which these models do not use. Leave it out.")


def _refuse_other_splits(path: Path, names: Iterable[str]) -> None:
    """Raise for a split in another form than masks, in place of which one would be drawn."""
    if others := [name for name in names if OTHER_SPLIT.fullmatch(str(name))]:
        raise UserError(f"{path} has {', '.join(others)}, which is not read. Give {', '.join(MASKS)} [N], or no split.")


def _split(path: Path, found: dict[str, Any], y: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """Node ids of the three masks; None without any."""
    given = [name for name in MASKS if found.get(name) is not None]
    if not given:
        return None
    if len(given) < len(MASKS):
        raise UserError(f"{path} has {' and '.join(given)} alone. Give {', '.join(MASKS)}, or none of them.")
    train, val, test = (_mask(path, name, found[name], y) for name in MASKS)
    if len(torch.cat([train, val, test]).unique()) < len(train) + len(val) + len(test):
        raise UserError(f"{path}: a node is in two of {', '.join(MASKS)}. {WAY_OUT}.")
    return train, val, test


def _mask(path: Path, name: str, value: Any, y: Tensor) -> Tensor:
    mask = _array(path, name, value)
    if mask.ndim == 2:
        raise _shaped(path, name, mask, "one split has a mask [N]: keep one column")
    if mask.shape != tuple(y.shape) or not np.isin(mask, (0, 1)).all():
        raise _shaped(path, name, mask, f"a mask of these nodes is true or false, [{len(y)}]")
    nodes = torch.from_numpy(mask.astype(bool)).nonzero().squeeze(1)
    if not len(nodes) or bool((y[nodes] < 0).any()):
        cause = "holds a node without a class" if len(nodes) else "is empty"
        raise UserError(f"{path}: {name} {cause}. {WAY_OUT}.")
    return nodes
