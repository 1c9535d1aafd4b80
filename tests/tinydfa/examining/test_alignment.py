"""Alignment: cosines and norm ratios by hand, and that measuring leaves no trace."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.tinydfa.nets import Mlp, batch, error_of, fill, gradients_of, mlp_rule
from tinydfa import DFA, DFAError, DFALayer, attach, measure_alignment


@torch.no_grad()
def signals_at_points(net: Mlp, x: Tensor, y: Tensor, matrix: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """DFA's and BP's gradient at the output of every point, ``[B, d]`` each."""
    h = [x]
    for layer in net.hidden:
        h.append(torch.tanh(layer(h[-1])))
    error = error_of(net.top(h[-1]), y)
    found, backprop, above = {}, error, net.top
    for number in (2, 1, 0):
        backprop = backprop @ above.weight
        found[f"points.{number}"] = (error @ matrix[:, : h[number + 1].shape[1]] / 7**0.5, backprop.clone())
        backprop = backprop * (1 - h[number + 1] ** 2)
        above = net.hidden[number]
    return found


def cosine(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum(-1) / (one.square().sum(-1) * other.square().sum(-1)).sqrt()


def loss_of(x: Tensor, y: Tensor):
    return lambda net: cross_entropy(net(x), y)


def test_points_show_cosine_and_norm_ratio_over_samples():
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, "dfa")
    result = measure_alignment(net, loss_of(x, y))
    for name, (ours, truth) in signals_at_points(net, x, y, attachment.head.feedback_matrix).items():
        angles = cosine(ours, truth)
        mean = float(angles.mean())
        assert result[name].mean == pytest.approx(mean, abs=1e-5)
        assert result[name].std == pytest.approx(float((angles - mean).square().mean().sqrt()), abs=1e-5)
        ratio = ours.square().sum().sqrt() / truth.square().sum().sqrt()
        assert result[name].norm_ratio == pytest.approx(float(ratio), rel=1e-4)
        assert result[name].samples == 8


@pytest.mark.parametrize(("batch_dims", "rows"), [(None, 20), ((0,), 4), ((1,), 5)])
def test_every_place_of_a_sequence_counts_that_the_output_has_a_row_for(batch_dims, rows):
    """B = 4 sequences of T = 5 places: 20 cosines of 6 numbers, or one for each sequence, or one for each place."""
    net = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2))
    x = torch.randn(4, 5, 3)
    matrix_shape = 2 if batch_dims is None else 2 * 20 // rows
    attachment = attach(net, "dfa", points=["1"], batch_dims=batch_dims)
    found = measure_alignment(net, lambda net: net(x).pow(3).sum())["1"]

    error = 3 * net(x).detach() ** 2
    front = 1 if batch_dims == (1,) else 0
    ours = error.movedim(front, 0).reshape(rows, matrix_shape) @ attachment.head.feedback_matrix
    truth = (error @ net[2].weight).detach().movedim(front, 0).reshape(rows, -1)
    cosine = torch.cosine_similarity(ours, truth)
    assert found.samples == rows
    assert found.mean == pytest.approx(float(cosine.mean()), abs=1e-5)
    assert found.std == pytest.approx(float(cosine.std(correction=0)), abs=1e-5)


@pytest.mark.parametrize("method", ["dfa", "sdfa", "drtp", "fa", "usf", "frsf"])
def test_parameters_show_cosine_and_norm_ratio_of_their_gradients(method):
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, method)
    grads = []
    for block in (attachment.backprop, torch.enable_grad):
        net.zero_grad()
        with block():
            attachment.target = y
            cross_entropy(net(x), y).backward()
        grads.append(gradients_of(net))

    def loss_fn(net: Mlp) -> Tensor:
        attachment.target = y
        return cross_entropy(net(x), y)

    result = measure_alignment(net, loss_fn)
    for name, truth in grads[0].items():
        ours = grads[1][name]
        assert result[name].mean == pytest.approx(float(cosine(ours.flatten(), truth.flatten())), abs=1e-5)
        assert result[name].norm_ratio == pytest.approx(float(ours.norm() / truth.norm()), rel=1e-4)
        assert result[name].std == 0
    assert result["top.weight"].mean == pytest.approx(1)


def test_bp_is_aligned_with_itself_and_shallow_with_nothing():
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, "bp", points=["hidden.*"])
    assert all(a.mean == pytest.approx(1) for a in measure_alignment(net, loss_of(x, y)).values())
    attachment.method = "shallow"
    result = measure_alignment(net, loss_of(x, y))
    assert result["top.weight"].mean == pytest.approx(1)
    assert result["hidden.1.weight"][:3] == (0, 0, 0)
    assert result["hidden.1"][:3] == (0, 0, 0)


def test_frozen_parameters_and_layers_are_left_out():
    net, (x, y) = Mlp(), batch()
    net.hidden[0].requires_grad_(False)
    attach(net, "dfa")
    result = measure_alignment(net, loss_of(x, y))
    assert "hidden.0.weight" not in result
    assert "points.0" not in result
    assert "points.1" in result


def test_rows_outside_the_loss_do_not_count():
    net, (x, y) = Mlp(), batch()
    matrix = attach(net, "dfa").head
    mask = torch.tensor([1, 0, 1, 1, 0, 0, 1, 0], dtype=torch.bool)
    result = measure_alignment(net, lambda net: cross_entropy(net(x)[mask], y[mask]))
    hand = signals_at_points(net, x[mask], y[mask], matrix.feedback_matrix)
    for name, (ours, truth) in hand.items():
        assert result[name].samples == 4
        assert result[name].mean == pytest.approx(float(cosine(ours, truth).mean()), abs=1e-5)


class Noisy(nn.Module):
    """Dropout and batch normalisation below and above a point."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.top = nn.Linear(6, 9), nn.Linear(9, 7), nn.Linear(7, 3)
        self.bn, self.drop, self.point, self.point2 = nn.BatchNorm1d(9), nn.Dropout(0.5), DFALayer(), DFALayer()
        fill(self, torch.Generator().manual_seed(0))
        self.masks: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        h = self.drop(self.bn(self.fc1(x)))
        self.masks.append((h == 0).detach())
        return self.top(self.drop(self.point2(torch.tanh(self.fc2(self.point(h))))))


@pytest.mark.parametrize("method", ["dfa", "fa", "brsf"])
def test_both_gradients_see_the_same_dropout_masks_and_measuring_leaves_no_trace(method):
    net, (x, y) = Noisy(), batch()
    attachment = attach(net, method)
    cross_entropy(net(x), y).backward()
    net.masks.clear()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    grads, state, saved = gradients_of(net), torch.get_rng_state(), attachment.state_dict()
    measure_alignment(net, loss_of(x, y))
    assert len(net.masks) == 2
    assert torch.equal(*net.masks)
    assert 0 < net.masks[0].sum() < net.masks[0].numel()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert net.bn.num_batches_tracked == 1
    assert all(torch.equal(p.grad, grads[name]) for name, p in net.named_parameters())
    assert attachment.method == method
    after = attachment.state_dict()
    assert all(torch.equal(saved["layerwise"][name], after["layerwise"][name]) for name in saved["layerwise"])


def test_a_loss_function_that_raises_leaves_no_trace_either():
    net, (x, _) = Noisy(), batch()
    attachment = attach(net, "dfa")
    before, state = net.bn.running_mean.clone(), torch.get_rng_state()

    def broken(net: nn.Module) -> Tensor:
        net(x)
        raise KeyError

    with pytest.raises(KeyError):
        measure_alignment(net, broken)
    assert torch.equal(net.bn.running_mean, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert attachment.link.observation is None


def test_measuring_does_not_change_the_training_that_follows():
    losses = []
    for measured in (False, True):
        torch.manual_seed(3)
        net, (x, y) = Noisy(), batch()
        attach(net, "dfa")
        optimizer, run = torch.optim.SGD(net.parameters(), lr=0.1), []
        for _ in range(4):
            optimizer.zero_grad()
            loss = cross_entropy(net(x), y)
            loss.backward()
            if measured:
                measure_alignment(net, loss_of(x, y))
            optimizer.step()
            run.append(loss.item())
        losses.append(run)
    assert losses[0] == losses[1]


def test_a_model_with_its_own_head_needs_no_attachment():
    net, (x, y) = Mlp(), batch()
    model = nn.Sequential(net, DFA(list(net.points)))
    result = measure_alignment(model, loss_of(x, y))
    hand = signals_at_points(net, x, y, model[1].feedback_matrix)
    ours, truth = hand["points.1"]
    names = [name for name in result if "weight" not in name and "bias" not in name]
    assert len(names) == 3
    assert result[names[1]].mean == pytest.approx(float(cosine(ours, truth).mean()), abs=1e-5)


def test_a_head_that_trains_nothing_can_be_measured():
    net, (x, y) = Mlp(), batch()
    model = nn.Sequential(net, DFA(list(net.points), no_training=True))
    result = measure_alignment(model, loss_of(x, y))
    assert result["0.hidden.1.weight"].mean == 0
    assert result["0.top.weight"].mean == pytest.approx(1)


def test_points_that_run_twice_are_numbered():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.point, self.top = nn.Linear(6, 6), DFALayer(), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.top(self.point(self.a(self.point(self.a(x)))))

    net, (x, y) = Twice(), batch()
    attach(net, "dfa")
    assert {"point", "point#1"} <= measure_alignment(net, loss_of(x, y)).keys()


def test_a_model_without_a_method_and_a_loss_that_is_no_number_are_refused():
    net, (x, y) = Mlp(), batch()
    with pytest.raises(DFAError, match=r"no method is at work on Mlp.*attach"):
        measure_alignment(net, loss_of(x, y))
    attach(net, "dfa")
    with pytest.raises(DFAError, match=r"shape \(8, 3\)"):
        measure_alignment(net, lambda net: net(x))


def test_update_along_an_aligned_gradient_lowers_the_loss():
    """What a positive cosine of all parameters together promises."""
    net, (x, y) = Mlp(), batch()
    matrix = attach(net, "dfa").head
    before = cross_entropy(net(x), y)
    before.backward()
    rule = mlp_rule(net, x, y, matrix.feedback_matrix, lambda e: e)
    result = measure_alignment(net, loss_of(x, y))
    product = sum(
        a.mean * float(rule[name].norm()) * float(rule[name].norm()) / a.norm_ratio
        for name, a in result.items()
        if name in rule
    )
    assert math.isfinite(product)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.sub_(1e-3 * rule[name])
        gained = float(before - cross_entropy(net(x), y))
    assert gained == pytest.approx(1e-3 * product, rel=0.05)


def test_chance_is_the_spread_of_the_mean_cosine_over_fresh_matrices():
    """12 samples whose errors are alike, so that their cosines are not independent; 3000 matrices drawn by hand."""
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    x = torch.randn(12, 5, generator=generator, dtype=torch.float64)
    y = torch.tensor([0] * 9 + [1, 2, 2])
    attachment = attach(net, "dfa", points=["1"], feedback="gaussian")
    found = measure_alignment(net, lambda net: cross_entropy(net(x), y))["1"]
    error = torch.autograd.functional.jacobian(lambda out: cross_entropy(out, y), net(x))
    truth = error @ net[2].weight.detach()
    fresh = torch.randn(3000, 3, 6, generator=generator, dtype=torch.float64)
    means = torch.cosine_similarity(error @ fresh, truth.expand(3000, -1, -1), dim=2).mean(dim=1)
    assert float(means.mean()) == pytest.approx(0, abs=0.02)
    assert found.chance == pytest.approx(float(means.std()), rel=0.15)
    assert found.chance > 2 / math.sqrt(12 * 6)  # more than samples that have nothing in common would give
    attachment.detach()


@pytest.mark.parametrize("width", [3, 40])
def test_chance_of_one_sample_and_of_equal_samples_is_one_over_the_root_of_the_width(width):
    net, row = nn.Sequential(nn.Linear(5, width), nn.Tanh(), nn.Linear(width, 4)), torch.randn(1, 5)
    attach(net, "dfa", points=["1"])
    for samples in (1, 7):
        x = row.expand(samples, 5)
        found = measure_alignment(net, lambda net, x=x: cross_entropy(net(x), torch.ones(len(x), dtype=torch.long)))
        assert found["1"].chance == pytest.approx(width**-0.5, rel=1e-4)
        assert math.isnan(found["0.weight"].chance)


def test_a_reference_that_cancels_is_told_by_its_size():
    """The errors of a softmax sum to 0, so a top layer whose rows are equal sends nothing down but rounding."""
    net, (x, y) = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)), batch()
    attach(net, "dfa", points=["1", "3"])
    lively = measure_alignment(net, loss_of(x, y))
    with torch.no_grad():
        net[4].weight.copy_(torch.tensor([0.03, -0.01, 0.02, 0.04]).expand(3, 4))
    silent = measure_alignment(net, loss_of(x, y))
    for name in ("1", "3"):
        assert lively[name].reference > 1e4
        assert silent[name].reference < 1
        assert not silent[name].significant
    assert silent["4.weight"].reference > 1e6


def test_what_chance_would_give_is_not_significant_and_what_backpropagation_gives_is():
    net, (x, y) = Mlp(), batch(64)
    attachment = attach(net, "bp", points=["hidden.*"])
    assert all(found.significant for found in measure_alignment(net, loss_of(x, y)).values())
    attachment.method = "shallow"
    assert not measure_alignment(net, loss_of(x, y))["hidden.1"].significant


def test_sparse_gradients_are_measured_like_dense_ones():
    found = []
    for sparse in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.EmbeddingBag(9, 4, mode="sum", sparse=sparse), nn.Tanh(), nn.Linear(4, 3))
        attach(net, "dfa", points=["1"])
        ids = torch.tensor([[0, 3, 5], [2, 8, 3]])
        found.append(measure_alignment(net, lambda net, ids=ids: net(ids).pow(3).sum())["0.weight"])
    assert found[0][:4] == pytest.approx(found[1][:4])
    assert found[0].norm_ratio > 0


def test_a_frozen_head_is_measured():
    net, (x, y) = Mlp(), batch()
    net.top.requires_grad_(False)
    attachment = attach(net, "dfa")
    found = measure_alignment(net, loss_of(x, y))
    ours, truth = signals_at_points(net, x, y, attachment.head.feedback_matrix)["points.1"]
    assert found["points.1"].mean == pytest.approx(float(cosine(ours, truth).mean()), abs=1e-5)
    attachment.method = "shallow"
    assert measure_alignment(net, loss_of(x, y))["points.1"][:3] == (0, 0, 0)
