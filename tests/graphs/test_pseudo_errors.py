"""Errors for nodes without a label: what every layer learns from, written by hand in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from graphs import alignment, embed, train
from graphs.models.networks import build_model
from graphs.presets import METHODS, PRESETS
from graphs.pseudo_errors import output_gradient
from graphs.train import Config
from harness.command import run_command
from harness.errors import UserError
from harness.options import make, parse

SPREADING = {"alpha": 0.6, "iterations": 4, "threshold": 0.45}


def adjacency(graph):
    joined = np.eye(graph.nodes)
    joined[tuple(graph.edge_index.numpy())] = 1
    degree = joined.sum(axis=1)
    return joined / np.sqrt(np.outer(degree, degree))


def by_hand(logits, graph, alpha, iterations, threshold):
    """Node by node, and the nodes that the filter drops."""
    exponential = np.exp(logits.detach().numpy().astype(np.float64))
    prediction = exponential / exponential.sum(axis=1, keepdims=True)
    error = np.zeros_like(prediction)
    for node in graph.train.tolist():
        error[node] = prediction[node]
        error[node, graph.y[node]] -= 1
    mixed = error.copy()
    for _ in range(iterations):
        mixed = (1 - alpha) * error + alpha * adjacency(graph) @ mixed
    size, dropped = np.mean([np.abs(error[node]).sum() for node in graph.train.tolist()]), []
    for node in sorted({*range(graph.nodes)} - {*graph.train.tolist()}):
        if np.abs(mixed[node]).sum() > 0:
            error[node] = size * mixed[node] / np.abs(mixed[node]).sum()
        if np.count_nonzero(prediction[node] - error[node] > threshold) != 1:
            error[node] = 0
            dropped.append(node)
    return error / len(graph.train), dropped


@pytest.fixture
def few(small):
    """The small graph with five labelled nodes; the isolated node has no label."""
    return replace(small, train=torch.tensor([0, 5, 7, 11, 20]))


def test_every_node_has_the_error_that_the_rule_gives_it(few):
    logits = 2 * torch.randn(25, 3, generator=torch.Generator().manual_seed(3))
    expected, dropped = by_hand(logits, few, **SPREADING)
    assert 0 < len(dropped) < 15
    found = output_gradient(logits, few, **SPREADING)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_labelled_nodes_keep_the_gradient_of_the_loss_and_nodes_out_of_reach_have_none(few):
    logits = torch.randn(25, 3, generator=torch.Generator().manual_seed(4), requires_grad=True)
    F.cross_entropy(logits[few.train], few.y[few.train]).backward()
    found = output_gradient(logits, few, **SPREADING)
    torch.testing.assert_close(found[few.train], logits.grad[few.train])
    assert found[3].tolist() == [0, 0, 0]
    assert found.isfinite().all()


@pytest.mark.parametrize("name", ["gcn_bp", "gcn_dfa", "gcn_dfa_spread"])
def test_gradients_of_both_layers_are_those_of_the_pseudo_errors_by_hand(few, name):
    """Top layer ``(S H)^T P``; the point gets ``S^T P W^T`` by BP, ``P F`` by DFA, ``S^T P F`` where errors spread."""
    options = {"pseudo_errors": True} | {f"pseudo_{key}": value for key, value in SPREADING.items()}
    preset = replace(PRESETS[name], dropout=0.0, **options)
    torch.manual_seed(0)
    model = build_model(preset, few.features, few.classes)
    attachment = train.attach_method(model, preset, seed=0)
    with torch.no_grad():
        logits = model(few)
    train.train_epoch(model, few, torch.optim.SGD(model.parameters(), lr=0.0), preset)

    mixing, features = adjacency(few), few.x.to_dense().numpy()
    hidden = np.maximum(mixing @ features @ model.conv1.lin.weight.detach().numpy().T, 0)
    errors, _ = by_hand(logits, few, **SPREADING)
    if name == "gcn_bp":
        at_point = mixing.T @ errors @ model.conv2.lin.weight.detach().numpy()
    else:
        projected = errors @ attachment.state_dict()["feedback_matrix"].numpy()[:, :16] / 4
        at_point = mixing.T @ projected if name == "gcn_dfa_spread" else projected
    below = (mixing @ features).T @ (at_point * (hidden > 0))
    np.testing.assert_allclose(model.conv2.lin.weight.grad.numpy(), ((mixing @ hidden).T @ errors).T, atol=1e-6)
    np.testing.assert_allclose(model.conv1.lin.weight.grad.numpy(), below.T, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("error_at", [None, "conv2.transformed"])
def test_every_method_of_the_command_trains_with_them_and_otherwise_than_without(method, error_at):
    plain, pseudo = (
        train.train(make(Config, method=method, error_at=error_at, epochs=3, pseudo_errors=errors))
        for errors in (False, True)
    )
    assert pseudo["curves"]["train_loss"][0] == plain["curves"]["train_loss"][0]
    assert pseudo["curves"]["train_loss"][2] != plain["curves"]["train_loss"][2]


def test_a_run_that_measures_alignment_is_prolonged_to_what_it_had_been_at_once(tmp_path):
    config = make(Config, epochs=6, checkpoint_every=3, alignment_every=2, pseudo_errors=True, out=tmp_path / "run")
    whole = train.train(config)
    run_command("graphs", replace(config, preset=replace(config.preset, epochs=4)), train.load, train.train)
    found = run_command("graphs", replace(config, resume=True), train.load, train.train)
    assert (found["curves"], found["metrics"]) == (whole["curves"], whole["metrics"])
    other = replace(config, preset=replace(config.preset, pseudo_alpha=0.5), resume=True)
    with pytest.raises(UserError, match=r"another configuration \(pseudo_alpha: 0.1 -> 0.5\)"):
        run_command("graphs", other, train.load, train.train)


def test_the_settings_of_a_run_without_them_are_those_of_a_run_made_before_there_were_any():
    assert not [name for name in make(Config).settings() if "pseudo" in name]
    assert make(Config, pseudo_errors=True).settings()["pseudo_iterations"] == 50


def test_alignments_and_maps_are_of_a_training_with_them():
    presets = ("gcn_dfa", "gcn_dfa_pseudo")
    plain, pseudo = (alignment.measure(make(alignment.Config, preset=preset, epochs=5)) for preset in presets)
    assert pseudo["metrics"]["alignment"] != plain["metrics"]["alignment"]
    plain, pseudo = (embed.hidden_activations(make(Config, preset=preset, epochs=5))[0] for preset in presets)
    assert not torch.equal(plain, pseudo)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pseudo-alpha", "0.5"], "--pseudo-alpha has no effect with --pseudo-errors False, only with True"),
        (["--pseudo-errors", "--pseudo-alpha", "1"], "pseudo_alpha is 1.0; it lies between 0 and 1"),
        (["--pseudo-errors", "--pseudo-threshold", "0"], "pseudo_threshold is 0.0; it lies between 0 and 1"),
        (["--pseudo-errors", "--pseudo-iterations", "0"], "pseudo_iterations is 0; errors are spread at least once"),
    ],
)
def test_a_setting_that_spreads_nothing_is_refused(words, message):
    with pytest.raises(UserError, match=message):
        parse(Config, words)
