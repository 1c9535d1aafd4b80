"""Small graphs for the tests, and the import of PyG, which warns about torch.jit all by itself."""

import os
import warnings
from pathlib import Path

import pytest
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch_geometric.nn  # noqa: F401

from graphs.data.graph import Graph
from graphs.data.sparse import SparseMatrix


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def data_dir():
    """The data root with the Planetoid files of Cora and CiteSeer."""
    root = os.environ.get("DFA_DATA")
    if not root or not (Path(root) / "planetoid").is_dir():
        pytest.skip("needs the Planetoid files below $DFA_DATA")
    return Path(root)


@pytest.fixture
def small():
    """25 nodes, 12 sparse features, 3 classes; node 3 is isolated; 15 training nodes."""
    generator = torch.Generator().manual_seed(1)
    joined = torch.rand(25, 25, generator=generator) < 0.15
    joined = (joined | joined.t()).fill_diagonal_(False)
    joined[3], joined[:, 3] = False, False
    x = torch.rand(25, 12, generator=generator) * (torch.rand(25, 12, generator=generator) < 0.4)
    nodes = torch.randperm(25, generator=generator)
    return Graph(
        name="small",
        x=SparseMatrix.from_dense(x),
        edge_index=joined.nonzero().t().contiguous(),
        y=torch.randint(0, 3, (25,), generator=generator),
        classes=3,
        train=nodes[:15],
        val=nodes[15:20],
        test=nodes[20:],
    )
