"""Small valid graphs: one's own in every kind of file, and Planetoid's eight files.

Planetoid's are pickles, and a damaged one is never opened: the reader compares it with its checksum first. Here the
checksums are those of the small files that were just written.
"""

import hashlib
import pickle
import random
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from scipy.sparse import csr_matrix

from graphs.data import planetoid
from graphs.data.graph import Graph, gcn_adjacency
from graphs.data.load import load_graph
from tests.fuzz.formats import Format

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch_geometric warns about torch itself
    from torch_geometric.data import Data

NODES, FEATURES, CLASSES = 40, 6, 3
SUMS = "checksums"  # beside the folder that is damaged


def arrays(rng: random.Random, split: bool) -> dict[str, np.ndarray]:
    """Features, edges, classes and perhaps masks."""
    generator = np.random.default_rng(rng.randrange(2**32))
    found = {
        "x": generator.random((NODES, FEATURES)).astype(rng.choice([np.float32, np.float64])),
        "edge_index": generator.integers(0, NODES, (2, 90)),
        "y": np.arange(NODES) % CLASSES,
    }
    if split:
        part = np.arange(NODES) * 4 // NODES
        found |= {"train_mask": part < 2, "val_mask": part == 2, "test_mask": part == 3}
    return found


def make_npz(folder: Path, rng: random.Random) -> Path:
    """Arrays."""
    path = folder / "own.npz"
    rng.choice([np.savez, np.savez_compressed])(path, **arrays(rng, rng.random() < 0.5))
    return path


def make_rows(folder: Path, rng: random.Random) -> Path:
    """Compressed rows, as in PyG's Amazon and Coauthor."""
    found = arrays(rng, False)
    source, target = found["edge_index"]
    adjacency = csr_matrix((np.ones(len(source)), (source, target)), shape=(NODES, NODES))
    adjacency.data[:] = 1
    features = csr_matrix(found["x"])
    path = folder / "own.npz"
    np.savez(
        path,
        adj_data=adjacency.data,
        adj_indices=adjacency.indices,
        adj_indptr=adjacency.indptr,
        attr_data=features.data,
        attr_indices=features.indices,
        attr_indptr=features.indptr,
        attr_shape=np.array(features.shape),
        labels=found["y"],
    )
    return path


def make_pt(folder: Path, rng: random.Random) -> Path:
    """PyG's Data, a dict, or a data set's file."""
    tensors = {name: torch.from_numpy(array) for name, array in arrays(rng, rng.random() < 0.5).items()}
    path = folder / "own.pt"
    torch.save(rng.choice([tensors, Data(**tensors), (tensors, None, Data)]), path)
    return path


def make_planetoid(folder: Path, rng: random.Random) -> Path:
    """Cora's eight files with 620 nodes, in a folder as PyG or its user spells it; and their checksums."""
    generator = np.random.default_rng(rng.randrange(2**32))
    x = (generator.random((620, 9)) < 0.3).astype(np.float32)
    y = np.eye(3, dtype=np.int32)[np.arange(620) % 3]
    order = 580 + generator.permutation(40)
    parts = {"x": csr_matrix(x[:60]), "y": y[:60], "allx": csr_matrix(x[:580]), "ally": y[:580]}
    parts |= {"tx": csr_matrix(x[order]), "ty": y[order]}
    contents = {name: pickle.dumps(part) for name, part in parts.items()}
    contents["graph"] = pickle.dumps({node: [(node + 1) % 620, (node - 1) % 620] for node in range(620)})
    contents["test.index"] = "".join(f"{node}\n" for node in order).encode()
    raw = folder / rng.choice(["planetoid/Cora/raw", "cora/raw"])
    raw.mkdir(parents=True)
    (folder.parent / SUMS).mkdir()
    for name, content in contents.items():
        (raw / f"ind.cora.{name}").write_bytes(content)
        (folder.parent / SUMS / f"cora.{name}").write_text(hashlib.sha256(content).hexdigest())
    return folder


def checked(graph: Graph) -> dict[str, object]:
    """A graph whose parts fit together, or AssertionError; and the matrix that a layer computes with."""
    assert len(graph.y) == graph.nodes
    assert 0 <= int(graph.edge_index.min()) <= int(graph.edge_index.max()) < graph.nodes
    assert bool((graph.edge_index[0] != graph.edge_index[1]).all())
    assert int(graph.y.max()) < graph.classes
    parts = torch.cat([graph.train, graph.val, graph.test])
    assert min(map(len, (graph.train, graph.val, graph.test))) > 0
    assert len(parts.unique()) == len(parts)
    assert int(graph.y[parts].min()) >= 0
    adjacency = graph.operator(gcn_adjacency).to_dense()
    return {"x": graph.x.to_dense(), "adjacency": adjacency, "y": graph.y, "parts": parts}


def read_own(path: Path) -> dict[str, object]:
    return checked(load_graph("synthetic", file=path))


def read_planetoid(folder: Path) -> dict[str, object]:
    sums = {path.name: path.read_text() for path in (folder.parent / SUMS).iterdir()}
    with mock.patch.dict(planetoid.SHA256, sums):
        return checked(load_graph("cora", folder))


FORMATS = {
    "graph-npz": Format(make_npz, read_own),
    "graph-rows": Format(make_rows, read_own),
    "graph-pt": Format(make_pt, read_own),
    "planetoid": Format(make_planetoid, read_planetoid),
}
