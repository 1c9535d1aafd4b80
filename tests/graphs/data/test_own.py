"""A graph of one's own: the files that it is read from, and what of them is refused by name."""

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from graphs import alignment
from graphs.data.load import load_graph
from graphs.data.own import draw_split, read_graph
from graphs.train import Config, train
from harness.errors import UserError
from harness.options import make
from tinydfa import Method

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch_geometric.data import Data

EDGES = np.array([[0, 1, 2, 3, 4, 5, 0], [1, 2, 3, 4, 5, 0, 3]])  # a ring with a chord, one way each
UNDIRECTED = {(a, b) for a, b in EDGES.T.tolist()} | {(b, a) for a, b in EDGES.T.tolist()}


def parts(nodes: int = 6, seed: int = 0, **changes) -> dict[str, np.ndarray]:
    """Six nodes of two classes; two nodes for each part of the split."""
    generator = np.random.default_rng(seed)
    masks = {name: np.arange(nodes) // 2 == part for part, name in enumerate(("train_mask", "val_mask", "test_mask"))}
    found = {"x": generator.random((nodes, 4)), "edge_index": EDGES, "y": np.arange(nodes) % 2} | masks | changes
    return {name: value for name, value in found.items() if value is not None}


def npz(path: Path, **changes) -> Path:
    np.savez(path, **parts(**changes))
    return path


def tensors(**changes) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.asarray(value)) for name, value in parts(**changes).items()}


def in_rows(path: Path, dense: bool = False, **changes) -> Path:
    """The same graph in the compressed rows of PyG's Amazon and Coauthor."""
    found = parts()
    adjacency = csr_matrix((np.ones(7, np.float32), EDGES), shape=(6, 6))
    attributes = csr_matrix(found["x"])
    named = {"adj_data": adjacency.data, "adj_indices": adjacency.indices, "adj_indptr": adjacency.indptr}
    named |= {"adj_shape": np.array(adjacency.shape), "labels": found["y"]}
    if dense:
        named["attr_matrix"] = found["x"]
    else:
        named |= {"attr_data": attributes.data, "attr_indices": attributes.indices}
        named |= {"attr_indptr": attributes.indptr, "attr_shape": np.array(attributes.shape)}
    named |= {name: found[name] for name in found if name.endswith("mask")}
    named["class_names"] = np.array(["a", None])  # Python objects, which need not be opened
    np.savez(path, **named | changes)
    return path


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


WRITERS = {
    "arrays": lambda folder: npz(folder / "g.npz"),
    "rows": lambda folder: in_rows(folder / "g.npz"),
    "rows and dense features": lambda folder: in_rows(folder / "g.NPZ.npz", dense=True),
    "dict": lambda folder: saved(folder / "g.pt", tensors()),
    "Data": lambda folder: saved(folder / "g.pth", Data(**tensors(), name="mine")),
    "data set of PyG": lambda folder: saved(folder / "data.pt", (tensors(), None, Data)),
    "labels in a column": lambda folder: npz(folder / "g.npz", y=(np.arange(6) % 2)[:, None]),
    "sparse features": lambda folder: saved(folder / "g.pt", tensors() | {"x": tensors()["x"].to_sparse()}),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_every_kind_of_file_gives_the_same_graph(tmp_path, write):
    graph = load_graph("synthetic", file=write(tmp_path), normalise_features=False)
    torch.testing.assert_close(graph.x.to_dense(), torch.from_numpy(parts()["x"]).float())
    assert {tuple(edge) for edge in graph.edge_index.t().tolist()} == UNDIRECTED
    assert graph.edge_index.shape[1] == len(UNDIRECTED)
    assert (graph.y.tolist(), graph.classes) == ([0, 1] * 3, 2)
    assert [part.tolist() for part in (graph.train, graph.val, graph.test)] == [[0, 1], [2, 3], [4, 5]]


def test_loops_and_repeats_are_dropped_and_edges_count_both_ways(tmp_path):
    edges = np.array([[0, 0, 1, 2, 2, 3], [1, 1, 0, 2, 3, 2]])
    own = read_graph(npz(tmp_path / "g.npz", edge_index=edges))
    assert own.edge_index.tolist() == [[0, 1, 2, 3], [1, 0, 3, 2]]


def test_only_features_that_count_something_are_divided_by_their_sum(tmp_path):
    counts = np.array([[2.0, 6.0]] * 6)
    graph = load_graph("synthetic", file=npz(tmp_path / "g.npz", x=counts))
    assert graph.x.to_dense()[0].tolist() == [0.25, 0.75]
    measured = np.array([[-2.0, 6.0]] * 6)
    graph = load_graph("synthetic", file=npz(tmp_path / "h.npz", x=measured))
    assert graph.x.to_dense()[0].tolist() == [-2, 6]


def test_a_split_that_is_drawn_has_20_nodes_a_class_and_leaves_out_nodes_without_one():
    y = torch.tensor([0] * 300 + [1] * 200 + [2] * 10 + [-1] * 50)
    train, val, test = draw_split(y, seed=3)
    assert torch.bincount(y[train]).tolist() == [20, 20, 5]
    assert (len(val), len(test)) == (155, 310)  # of the 465 others with a class
    assert len(torch.cat([train, val, test]).unique()) == 510
    assert int(torch.cat([train, val, test]).max()) < 510
    assert torch.equal(draw_split(y, seed=3)[0], train)
    assert not torch.equal(draw_split(y, seed=4)[0], train)
    large = draw_split(torch.arange(5000) % 2, seed=0)
    assert [len(part) for part in large] == [40, 500, 1000]
    with pytest.raises(UserError, match="too few to draw a split from"):
        draw_split(torch.tensor([0, 1, 0]), seed=0)


REFUSED = {
    "no edges": ({"edge_index": np.zeros((2, 3), int)}, "edge_index joins no two nodes"),
    "edges in rows": ({"edge_index": EDGES.T}, r"edge_index has the shape \[7, 2\]"),
    "float edges": ({"edge_index": EDGES.astype(float)}, "edge_index .* type float64"),
    "node 6": ({"edge_index": np.array([[0], [6]])}, "edge_index names node 6, and there are 6"),
    "node -1": ({"edge_index": np.array([[0], [-1]])}, "edge_index names node -1"),
    "nan": (
        {"x": np.where(np.arange(24).reshape(6, 4) == 9, np.nan, 1)},
        "x of node 2 holds a number that is not finite",
    ),
    "too large": ({"x": np.full((6, 4), 1e300)}, "x of node 0 holds a number that is not finite"),
    "flat features": ({"x": np.ones(6)}, r"x has the shape \[6\]"),
    "words": ({"x": np.full((6, 4), "a")}, "x is <U1, where numbers are expected"),
    "fewer labels": ({"y": np.array([0, 1])}, "features of 6 nodes and classes of 2"),
    "one-hot labels": ({"y": np.eye(2, dtype=int)[np.arange(6) % 2]}, r"y has the shape \[6, 2\]"),
    "float labels": ({"y": np.ones(6)}, "y .* type float64"),
    "one class": ({"y": np.zeros(6, int)}, "y has classes up to 0 for 6 nodes"),
    "years": ({"y": np.arange(6) + 2000}, "y has classes up to 2005 for 6 nodes"),
    "two masks": ({"val_mask": None}, "has train_mask and test_mask alone"),
    "overlap": ({"val_mask": np.arange(6) < 1}, "a node is in two of"),
    "empty mask": ({"val_mask": np.zeros(6, bool)}, "val_mask is empty"),
    "ids for a mask": ({"val_mask": np.array([2, 3])}, r"val_mask has the shape \[2\]"),
    "ten splits": ({"val_mask": np.zeros((6, 10), bool)}, "one split has a mask"),
    "untold class": ({"y": np.array([-1, 1, 0, 1, 0, 1])}, "train_mask holds a node without a class"),
    "ids for a split": ({"valid_idx": np.array([2, 3])}, r"has valid_idx, which is not read\. Give train_mask"),
    "weights": ({"edge_weight": np.full(7, 0.5)}, "edge_weight gives edges weights"),
    "no features": ({"x": None}, "holds edge_index, y, train_mask.*Give x"),
}


@pytest.mark.parametrize(("changes", "cause"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("kind", ["npz", "pt"])
def test_what_is_no_graph_is_refused_with_the_entry_at_fault(tmp_path, kind, changes, cause):
    path = tmp_path / f"g.{kind}"
    if kind == "npz":
        npz(path, **changes)
    elif changes.get("x") is not None and changes["x"].dtype.kind == "U":
        pytest.skip("a tensor holds no words")
    else:
        saved(path, tensors(**changes))
    with pytest.raises(UserError, match=cause.replace("float64", "(torch.)?float64")) as caught:
        read_graph(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"adj_indices": np.array([0, 1, 2, 3, 4, 5, 9])}, "adj_indptr and adj_indices are no matrix"),
        ({"adj_indptr": np.array([0, 9, 9, 9, 9, 9, 9])}, "adj_indptr and adj_indices are no matrix"),
        ({"attr_shape": np.array([6, 1])}, "attr_indptr and attr_indices are no matrix"),
        ({"adj_data": np.full(7, 2.0)}, "adj_data gives edges weights"),
        ({"labels": np.array(["a", None])}, "cannot be read as an npz file .*allow_pickle"),
    ],
)
def test_rows_that_do_not_fit_together_are_refused(tmp_path, changes, cause):
    with pytest.raises(UserError, match=cause):
        read_graph(in_rows(tmp_path / "g.npz", **changes))


class Trap:
    """What a pickle would run."""

    def __reduce__(self):
        return pytest.fail, ("code of the file was run",)


def test_code_in_a_file_is_refused_and_not_run(tmp_path):
    path = saved(tmp_path / "g.pt", tensors() | {"note": Trap()})
    with pytest.raises(UserError, match=r"g\.pt cannot be read without running code .*pytest.*, which is code"):
        read_graph(path)


def test_torchs_advice_to_run_the_code_is_not_handed_on(tmp_path):
    path = saved(tmp_path / "g.pt", tensors())
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    with pytest.raises(UserError, match=r"g\.pt cannot be read") as caught:
        read_graph(path)
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no graph", b"PK\x03\x04"])
@pytest.mark.parametrize("name", ["g.npz", "g.pt"])
def test_a_damaged_file_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=re.escape(str(tmp_path / name))):
        read_graph(tmp_path / name)


def test_several_graphs_in_a_file_are_refused(tmp_path):
    path = saved(tmp_path / "data.pt", (tensors(), {"x": torch.tensor([0, 3, 6])}, Data))
    with pytest.raises(UserError, match="holds several graphs"):
        read_graph(path)


def test_a_file_that_is_not_there_or_of_another_kind_is_named(tmp_path):
    with pytest.raises(UserError, match=r"--graph .*g\.npz: no such file"):
        read_graph(tmp_path / "g.npz")
    (tmp_path / "g.csv").write_text("0,1\n")
    with pytest.raises(UserError, match=r"--graph .*g\.csv: not a kind that is read"):
        read_graph(tmp_path / "g.csv")


def two_communities(path: Path, unlabelled: int = 0) -> Path:
    """Sixty nodes in two groups that are joined within, and whose features say little."""
    generator = np.random.default_rng(0)
    y = np.arange(60) % 2
    pairs = generator.integers(0, 30, (2, 400)) * 2 + generator.integers(0, 2, 400)
    x = generator.normal(size=(60, 5)) + 0.7 * y[:, None]
    known = np.where(np.arange(60) < unlabelled, -1, y)
    np.savez(path, x=x, edge_index=pairs, y=known)
    return path


@pytest.mark.parametrize("method", [Method.DFA, Method.DRTP, Method.BP])
def test_a_network_learns_a_graph_of_ones_own(tmp_path, method):
    path = two_communities(tmp_path / "friends.npz", unlabelled=6)
    result = train(make(Config, graph=path, method=method, epochs=60, device="cpu"))
    assert result["dataset"] == "friends"
    assert result["metrics"]["test_accuracy"] > 0.9


def test_options_that_name_two_graphs_are_refused(tmp_path):
    with pytest.raises(UserError, match="--dataset and --graph name two graphs"):
        make(Config, graph=tmp_path / "g.npz", dataset="cora")
    with pytest.raises(UserError, match="--data-dir and --graph name two graphs"):
        make(Config, graph=tmp_path / "g.npz", data_dir=tmp_path)


def test_nodes_without_a_class_are_refused_where_the_loss_or_the_folds_need_them(tmp_path):
    path = two_communities(tmp_path / "friends.npz", unlabelled=6)
    with pytest.raises(UserError, match="node 0 has no class"):
        alignment.measure(make(alignment.Config, graph=path, epochs=1, device="cpu"))
    with pytest.raises(UserError, match=r"friends\.npz: the preset trains on 5 folds"):
        train(make(Config, graph=path, model="dna", epochs=1, device="cpu"))
    whole = two_communities(tmp_path / "all.npz")
    assert train(make(Config, graph=whole, model="dna", epochs=1, device="cpu"))["dataset"] == "all"
