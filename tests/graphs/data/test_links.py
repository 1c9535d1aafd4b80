import pytest
import torch

from graphs.autoencoder import Config, evaluate, reconstruction_loss, train
from graphs.data.graph import gcn_adjacency
from graphs.data.links import split_links
from graphs.data.load import load_graph
from harness.errors import UserError
from harness.options import make
from tinydfa import Method


def codes(edges, nodes=2708):
    return set((edges.amin(dim=0) * nodes + edges.amax(dim=0)).tolist())


@pytest.fixture(scope="module")
def whole():
    return load_graph("synthetic")


def test_held_out_edges_are_absent_from_the_training_adjacency_in_both_directions(whole):
    links = split_links(whole, 0.05, 0.10, seed=0)
    adjacency = whole.with_edges(links.train).operator(gcn_adjacency).to_dense()
    assert adjacency[links.test[0], links.test[1]].abs().sum() == 0
    assert adjacency[links.test[1], links.test[0]].abs().sum() == 0


def test_the_parts_are_disjoint_and_make_up_the_graph_but_for_the_validation_edges(whole):
    links = split_links(whole, 0.05, 0.10, seed=0)
    train_, test = codes(links.train), codes(links.test)
    assert (len(test), len(train_)) == (527, 5278 - 263 - 527)
    assert not train_ & test
    assert train_ | test < codes(whole.edge_index)
    assert links.train.size(1) == 2 * len(train_)


def test_absent_pairs_are_distinct_and_join_nothing_in_the_whole_graph(whole):
    links = split_links(whole, 0.05, 0.10, seed=0)
    absent = links.test_absent
    assert bool((absent[0] < absent[1]).all())
    assert len(codes(absent)) == absent.size(1) == 527
    assert not codes(absent) & codes(whole.edge_index)


def test_the_split_follows_its_seed(whole):
    first, again, other = (split_links(whole, 0.05, 0.1, seed).test for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_loss_is_the_binary_cross_entropy_of_both_kinds():
    z = torch.tensor([[1.0, 0.0], [2.0, 1.0], [-1.0, 3.0]])
    present, absent = torch.tensor([[0], [1]]), torch.tensor([[0, 1], [2, 2]])
    sigmoid = lambda t: 1 / (1 + torch.tensor(-t).exp())  # noqa: E731
    expected = -sigmoid(2.0).log() - ((1 - sigmoid(-1.0)).log() + (1 - sigmoid(1.0)).log()) / 2
    torch.testing.assert_close(reconstruction_loss(z, present, absent), expected)


def test_scores_are_perfect_when_joined_nodes_point_alike(whole):
    links = split_links(whole, 0.05, 0.10, seed=0)

    class Oracle(torch.nn.Module):
        def forward(self, graph):
            adjacency = torch.zeros(graph.nodes, graph.nodes)
            adjacency[links.test[0], links.test[1]] = adjacency[links.test[1], links.test[0]] = 1
            return adjacency + 10 * torch.eye(graph.nodes)

    assert evaluate(Oracle(), whole, links) == {"test_auc": 1.0, "test_ap": 1.0}


def test_backpropagation_and_dfa_fit_the_training_edges_better_than_shallow():
    loss = {
        method: train(make(Config, method=method, epochs=60))["metrics"]["train_loss"]
        for method in (Method.BP, Method.DFA, Method.SHALLOW)
    }
    assert loss[Method.BP] < loss[Method.DFA] < loss[Method.SHALLOW] - 0.1


@pytest.mark.data
def test_links_of_cora_are_predicted_with_dfa_and_not_without(data_dir):
    auc = {
        method: train(make(Config, dataset="cora", method=method, epochs=100, data_dir=data_dir))["metrics"]["test_auc"]
        for method in (Method.BP, Method.DFA, Method.SHALLOW)
    }
    assert auc[Method.BP] > 0.80
    assert auc[Method.DFA] > 0.78
    assert auc[Method.SHALLOW] < 0.68


def test_drtp_is_refused_for_want_of_targets():
    with pytest.raises(UserError, match="drtp needs a target"):
        train(make(Config, method=Method.DRTP))
