"""Feedback matrices: what they are drawn from, how projections are scaled, and that a seed alone decides them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from tests.tinydfa.nets import Mlp, assert_gradients, batch, mlp_rule
from tinydfa import DFA, DFALayer, Feedback, attach


def trained(feedback: Feedback, method: str = "dfa"):
    """A network after one backward pass, its data and its feedback matrix."""
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, method, feedback=feedback)
    attachment.target = y
    cross_entropy(net(x), y).backward()
    return net, x, y, attachment.head.feedback_matrix


SCALES = {
    "largest": lambda d: 7**-0.5,
    "point": lambda d: (3 * d) ** -0.5,
    "none": lambda d: 1.0,
}


@pytest.mark.parametrize("scaling", SCALES)
def test_scaling_of_the_projection(scaling):
    net, x, y, matrix = trained(Feedback(scaling=scaling))
    assert_gradients(net, mlp_rule(net, x, y, matrix, lambda e: e, SCALES[scaling]))


@pytest.mark.parametrize("scaling", SCALES)
def test_error_sum_undoes_the_mean_over_the_batch_for_hidden_layers_alone(scaling):
    net, x, y, matrix = trained(Feedback(error_sum=True, scaling=scaling))
    assert_gradients(net, mlp_rule(net, x, y, matrix, lambda e: 8 * e, SCALES[scaling]))


@pytest.mark.parametrize("scaling", SCALES)
def test_points_with_columns_of_their_own_share_nothing(scaling):
    net, x, y, matrix = trained(Feedback(shared=False, scaling=scaling, distribution="gaussian"))
    assert matrix.shape == (3, 5 + 4 + 7)
    starts = {5: 0, 4: 5, 7: 9}

    expected = mlp_rule(net, x, y, matrix[:, :7], lambda e: e, SCALES[scaling])
    for number, width in enumerate(starts):
        columns = torch.zeros(3, 7)
        columns[:, :width] = matrix[:, starts[width] : starts[width] + width]
        part = mlp_rule(net, x, y, columns, lambda e: e, SCALES[scaling])
        expected |= {name: gradient for name, gradient in part.items() if name.startswith(f"hidden.{number}")}
    assert_gradients(net, expected)


def test_points_of_the_same_name_have_columns_of_their_own_all_the_same():
    points = [DFALayer("hidden"), DFALayer("hidden")]
    net = nn.Sequential(nn.Linear(4, 6), points[0], nn.Linear(6, 6), points[1], nn.Linear(6, 3))
    head = DFA(points, feedback=Feedback(shared=False))
    x = torch.randn(5, 4)
    head(net(x)).square().sum().backward()
    error, matrix = 2 * net(x).detach(), head.feedback_matrix
    torch.testing.assert_close(net[2].bias.grad, (error @ matrix[:, 6:]).sum(0) / 6**0.5)
    torch.testing.assert_close(net[0].bias.grad, (error @ matrix[:, :6]).sum(0) / 6**0.5)


def test_own_columns_stay_in_place_when_a_layer_is_frozen():
    net, (x, y) = Mlp(), batch()
    net.hidden[0].requires_grad_(False)
    attachment = attach(net, "dfa", feedback=Feedback(shared=False))
    cross_entropy(net(x), y).backward()
    assert attachment.head.feedback_matrix.shape == (3, 5 + 4 + 7)


DISTRIBUTIONS = {"uniform": 3**-0.5, "gaussian": 1.0, "sign": 1.0, "sparse": 0.2**0.5}


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_distributions_have_their_moments(distribution):
    matrix = Feedback(distribution=distribution, density=0.2, seed=5).draw(200, 300)
    deviation = DISTRIBUTIONS[distribution]
    assert matrix.dtype is torch.float32
    assert abs(float(matrix.mean())) < 4 * deviation / math.sqrt(60_000)
    assert float(matrix.std()) == pytest.approx(deviation, rel=0.03)


def test_uniform_fills_minus_one_to_one_evenly():
    matrix = Feedback(seed=1).draw(200, 300)
    assert matrix.min() >= -1
    assert matrix.max() < 1
    counts = torch.histc(matrix, bins=10, min=-1, max=1)
    assert counts.min() > 5_600
    assert counts.max() < 6_400


def test_sign_has_two_values_and_sparse_keeps_the_density():
    assert set(Feedback(distribution="sign").draw(50, 60).unique().tolist()) == {-1.0, 1.0}
    sparse = Feedback(distribution="sparse", density=0.25).draw(200, 300)
    kept = sparse[sparse != 0]
    assert len(kept) / 60_000 == pytest.approx(0.25, abs=0.01)
    assert float(kept.std()) == pytest.approx(1.0, rel=0.03)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_a_seed_decides_the_matrix_and_the_global_generator_is_left_alone(distribution):
    torch.manual_seed(11)
    state = torch.get_rng_state()
    first = trained(Feedback(distribution=distribution, seed=4))[3]
    assert torch.equal(torch.get_rng_state(), state_after_mlp(state))
    torch.manual_seed(99)
    assert torch.equal(first, trained(Feedback(distribution=distribution, seed=4))[3])
    assert not torch.equal(first, trained(Feedback(distribution=distribution, seed=5))[3])


def state_after_mlp(state: torch.Tensor) -> torch.Tensor:
    """The generator after the construction of an `Mlp`, which is all that `trained` may draw from it."""
    torch.set_rng_state(state)
    Mlp()
    return torch.get_rng_state()


@pytest.mark.parametrize("method", ["fa", "brsf", "frsf", "drtp", "sdfa"])
def test_no_method_draws_from_the_global_generator(method):
    net, (x, y) = Mlp(), batch()
    state = torch.get_rng_state()
    attachment = attach(net, method)
    for _ in range(2):
        attachment.target = y
        cross_entropy(net(x), y).backward()
    assert torch.equal(torch.get_rng_state(), state)


def test_dtype_of_the_model_is_the_dtype_of_its_gradients():
    net, (x, y) = Mlp().double(), batch()
    attachment = attach(net, "dfa")
    cross_entropy(net(x.double()), y).backward()
    net32 = Mlp()
    attach(net32, "dfa")
    cross_entropy(net32(x), y).backward()
    for p, q in zip(net.parameters(), net32.parameters(), strict=True):
        assert p.grad.dtype is torch.float64
        torch.testing.assert_close(p.grad.float(), q.grad)
    assert attachment.head.feedback_matrix.dtype is torch.float32


@pytest.mark.parametrize("density", [0.0, -0.1, 1.5])
def test_density_outside_its_range_is_refused(density):
    with pytest.raises(ValueError, match="density"):
        Feedback(distribution="sparse", density=density)


@pytest.mark.parametrize("seed", [0, 1, 17])
def test_feedback_has_nothing_in_common_with_weights_drawn_under_the_same_seed(seed):
    """Else a top layer that is drawn first equals the feedback, and DFA looks like backpropagation."""
    torch.manual_seed(seed)
    top = nn.Linear(500, 40).weight.flatten()
    drawn = Feedback(seed=seed).draw(40, 500).flatten()
    assert abs(torch.corrcoef(torch.stack([top, drawn]))[0, 1]) < 0.03  # five deviations of 20,000 independent pairs


@pytest.mark.parametrize("method", ["dfa", "drtp"])
@pytest.mark.parametrize("look", [True, False])
def test_without_checks_no_number_is_read_back_from_the_device(method, look):
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, method, feedback=Feedback(check_finite=look))
    attachment.target = y
    loss = cross_entropy(net(x), y)
    with Reads() as reads:
        loss.backward()
    assert (reads.count > 0) == look


class Reads(TorchDispatchMode):
    """Counts how often a number is read out of a tensor."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def test_under_bfloat16_autocast_the_projection_is_a_bfloat16_product_even_for_float32_points():
    class Float(nn.Module):
        def forward(self, x):
            return x.float()

    seen = []

    class Types(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten.mm.default and args[1].shape == (3, 7):  # by the feedback matrix
                seen.append((args[0].dtype, args[1].dtype))
            return func(*args, **(kwargs or {}))

    net, (x, y) = nn.Sequential(nn.Linear(6, 7), Float(), nn.Linear(7, 3)), batch()
    attach(net, "dfa", points=["1"])
    for autocast, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = cross_entropy(net(x).float(), y)
        with Types():
            loss.backward()
        assert seen[-1] == (dtype, dtype)
    assert net[0].weight.grad.dtype is torch.float32
