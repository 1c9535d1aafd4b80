import hashlib
import pickle
import re
import shutil

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from graphs.data import planetoid
from graphs.data.load import load_graph, stratified_folds
from graphs.data.synthetic import CLASS_SIZES, synthetic_citations
from harness.data import fetch
from harness.errors import UserError


def undirected(graph):
    source, target = graph.edge_index
    assert bool((source != target).all())
    codes = (source * graph.nodes + target).tolist()
    assert len(set(codes)) == len(codes)
    assert set(codes) == set((target * graph.nodes + source).tolist())
    return len(codes) // 2


def same_class(graph):
    source, target = graph.edge_index
    return (graph.y[source] == graph.y[target]).float().mean().item()


PUBLISHED = {  # nodes, features, classes, undirected edges, training nodes, isolated nodes
    "cora": (2708, 1433, 7, 5278, 140, 0),
    "citeseer": (3327, 3703, 6, 4552, 120, 48),
}


@pytest.mark.data
@pytest.mark.parametrize("name", PUBLISHED)
def test_planetoid_graphs_have_the_published_sizes(name, data_dir):
    graph = load_graph(name, data_dir)
    nodes, features, classes, edges, training, isolated = PUBLISHED[name]
    assert (graph.nodes, graph.features, graph.classes) == (nodes, features, classes)
    assert undirected(graph) == edges
    assert [len(graph.train), len(graph.val), len(graph.test)] == [training, 500, 1000]
    assert len(torch.cat([graph.train, graph.val, graph.test]).unique()) == training + 1500
    assert int((torch.bincount(graph.edge_index[0], minlength=nodes) == 0).sum()) == isolated
    assert torch.bincount(graph.y[graph.train]).tolist() == [20] * classes


@pytest.mark.data
def test_features_of_a_node_add_up_to_one_when_normalised(data_dir):
    sums = load_graph("citeseer", data_dir).x.to_dense().sum(dim=1)
    raw = load_graph("citeseer", data_dir, normalise_features=False).x
    assert int((sums == 0).sum()) == 15  # test nodes without a feature row
    torch.testing.assert_close(sums[sums > 0], torch.ones(3327 - 15))
    assert raw.value.unique().tolist() == [1.0]


@pytest.mark.data
def test_the_data_root_is_left_as_it_was(data_dir):
    before = sorted(path for path in data_dir.joinpath("planetoid").rglob("*"))
    load_graph("cora", data_dir)
    assert sorted(path for path in data_dir.joinpath("planetoid").rglob("*")) == before


@pytest.mark.data
def test_a_damaged_file_is_named_and_not_opened(data_dir, tmp_path, monkeypatch):
    shutil.copytree(data_dir / "planetoid" / "Cora", tmp_path / "planetoid" / "Cora")
    damaged = tmp_path / "planetoid" / "Cora" / "raw" / "ind.cora.graph"
    damaged.chmod(0o644)
    damaged.write_bytes(damaged.read_bytes()[:-100])
    monkeypatch.setattr("pickle.load", lambda *a, **k: pytest.fail("unpickled a file before checking it"))
    with pytest.raises(UserError, match=r"ind\.cora\.graph.*sha256"):
        load_graph("cora", tmp_path)


@pytest.fixture
def little_pubmed(tmp_path, monkeypatch):
    """PubMed's eight files with 620 nodes in place of 19,717: 60 to train, 500 to validate, the last 40 to test."""
    generator = np.random.default_rng(0)
    x = (generator.random((620, 9)) < 0.3).astype(np.float32)
    y = np.eye(3, dtype=np.int32)[np.arange(620) % 3]
    order = 580 + generator.permutation(40)  # the test rows are stored in this order
    graph = {
        node: [(node + 1) % 620, (node - 1) % 620, node] for node in range(620)
    }  # a ring; self loops are to be dropped
    parts = {
        "x": csr_matrix(x[:60]),
        "y": y[:60],
        "allx": csr_matrix(x[:580]),
        "ally": y[:580],
        "tx": csr_matrix(x[order]),
        "ty": y[order],
        "graph": graph,
    }
    raw = tmp_path / "planetoid" / "PubMed" / "raw"
    raw.mkdir(parents=True)
    for name, part in parts.items():
        (raw / f"ind.pubmed.{name}").write_bytes(pickle.dumps(part))
    (raw / "ind.pubmed.test.index").write_text("".join(f"{node}\n" for node in order))
    for path in raw.iterdir():
        name = path.name.removeprefix("ind.")
        monkeypatch.setitem(planetoid.SHA256, name, hashlib.sha256(path.read_bytes()).hexdigest())
    return tmp_path, x, y.argmax(axis=1)


def test_pubmed_files_are_read_with_test_rows_put_in_order(little_pubmed):
    root, x, y = little_pubmed
    graph = load_graph("pubmed", root, normalise_features=False)
    torch.testing.assert_close(graph.x.to_dense(), torch.from_numpy(x))
    assert graph.y.tolist() == y.tolist()
    assert undirected(graph) == 620
    assert (graph.train.tolist(), graph.test.tolist()) == (list(range(60)), list(range(580, 620)))
    assert graph.val.tolist() == list(range(60, 560))


def test_files_may_lie_partly_below_the_root_and_partly_in_the_cache(little_pubmed, tmp_path, monkeypatch):
    root, _, _ = little_pubmed
    monkeypatch.setenv("TINYDFA_CACHE", str(tmp_path / "cache"))
    there = tmp_path / "cache" / "data" / "planetoid" / "PubMed" / "raw"
    there.mkdir(parents=True)
    moved = root / "planetoid" / "PubMed" / "raw" / "ind.pubmed.graph"
    shutil.move(moved, there / moved.name)
    assert load_graph("pubmed", root).nodes == 620


@pytest.mark.parametrize(
    "place", ["planetoid/pubmed/raw", "pubmed/raw", "PubMed/raw", "PubMed/PubMed/raw", "pubmed/pubmed/raw", "planetoid"]
)
def test_the_folders_that_pyg_makes_are_found_in_either_case(little_pubmed, place):
    root, x, _ = little_pubmed
    (root / "aside").mkdir()
    raw = shutil.move(root / "planetoid" / "PubMed" / "raw", root / "aside" / "raw")
    shutil.rmtree(root / "planetoid")
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    shutil.move(raw, root / place)
    graph = load_graph("pubmed", root, normalise_features=False)
    torch.testing.assert_close(graph.x.to_dense(), torch.from_numpy(x))


def test_features_of_pubmed_that_are_not_the_published_ones_are_named_before_they_are_opened(tmp_path):
    path = tmp_path / "planetoid" / "PubMed" / "raw" / "ind.pubmed.allx"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not the features")
    (features,) = [file for file in planetoid.files("pubmed") if file.path.endswith("pubmed.allx")]
    with pytest.raises(UserError, match=r"ind\.pubmed\.allx is not the published file"):
        fetch([features], tmp_path, "PubMed")


def test_every_planetoid_file_has_a_place_and_mirrors():
    listed = [file for name in planetoid.NAMES for file in planetoid.files(name)]
    assert len({file.path for file in listed}) == 24
    assert all(re.fullmatch("[0-9a-f]{64}", file.sha256) for file in listed)
    assert all(planetoid.COMMIT in url and url.startswith("https://") for file in listed for url in file.urls)


def test_an_unknown_data_set_is_an_error_that_lists_the_known_ones():
    with pytest.raises(UserError, match=r"--dataset corra.*cora, citeseer, pubmed, synthetic"):
        load_graph("corra")


def test_the_synthetic_graph_looks_like_cora():
    graph = load_graph("synthetic")
    degree = torch.bincount(graph.edge_index[0], minlength=graph.nodes)
    assert (graph.nodes, graph.features, graph.classes, undirected(graph)) == (2708, 1433, 7, 5278)
    assert tuple(torch.bincount(graph.y).tolist()) == CLASS_SIZES
    assert 0.79 < same_class(graph) < 0.83
    assert degree.min() >= 1
    assert degree.median() == 3
    assert 60 < degree.max() < 250
    assert [len(graph.train), len(graph.val), len(graph.test)] == [140, 500, 1000]
    assert 17 < graph.x.value.numel() / graph.nodes < 20
    assert torch.bincount(graph.y[graph.train]).tolist() == [20] * 7
    assert len(torch.cat([graph.train, graph.val, graph.test]).unique()) == 1640


def test_the_synthetic_graph_is_the_same_every_time_and_differs_by_seed():
    first, again, other = synthetic_citations(), synthetic_citations(), synthetic_citations(seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first[:3], again[:3], strict=True))
    assert not torch.equal(first[0], other[0])


def test_stratified_folds_are_disjoint_cover_all_and_keep_the_class_shares():
    y = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)
    train, val, test = stratified_folds(y, seed=3)
    assert sorted(torch.cat([train, val, test]).tolist()) == list(range(100))
    for part, fifths in ((train, 1), (val, 1), (test, 3)):
        assert torch.bincount(y[part]).tolist() == [10 * fifths, 6 * fifths, 4 * fifths]
    assert torch.equal(stratified_folds(y, seed=3)[0], train)
    assert not torch.equal(stratified_folds(y, seed=4)[0], train)


def test_the_folds_follow_the_seed_of_the_run():
    parts = [load_graph("synthetic", five_folds=True, seed=seed).train for seed in (0, 0, 1)]
    assert torch.equal(parts[0], parts[1])
    assert not torch.equal(parts[0], parts[2])
    assert 540 <= len(parts[0]) <= 543
