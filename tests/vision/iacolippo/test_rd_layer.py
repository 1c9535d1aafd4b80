"""The RD layer: its map, what each rule sends to D1, and how near a random feedback can come to the gradient."""

import pytest
import torch

from tests.draws import feedback_generator
from vision.iacolippo.rd_layer import RDLayer, Rule, attach_rule, attainable_cosine
from vision.losses import summed_binary_cross_entropy

FEATURES, OUTPUTS, SAMPLES = 12, 4, 7


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return RDLayer(FEATURES, OUTPUTS)


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return torch.randn(SAMPLES, FEATURES), torch.randint(0, OUTPUTS, (SAMPLES,))


def gradients(layer, batch):
    """Gradients of d1 and d2 under the mean loss, and the ingredients written as matrices."""
    x, y = batch
    summed_binary_cross_entropy(layer(x), y).backward()
    with torch.no_grad():
        a2 = layer.r @ torch.diag(layer.d1) @ x.T  # [c, B]
        error = torch.sigmoid(torch.diag(layer.d2) @ a2) - torch.eye(OUTPUTS)[y].T  # [c, B]
    return layer.d1.grad, layer.d2.grad, x.T, a2, error


def test_the_layer_is_two_diagonals_around_a_fixed_matrix(layer, batch):
    x, _ = batch
    expected = (torch.diag(layer.d2) @ layer.r @ torch.diag(layer.d1) @ x.T).T
    torch.testing.assert_close(layer(x), expected)
    assert {name for name, _ in layer.named_parameters()} == {"d1", "d2"}
    assert dict(layer.named_buffers())["r"].shape == (OUTPUTS, FEATURES)


def test_backpropagation_sends_r_transposed_times_d2(layer, batch):
    attach_rule(layer, Rule.BP)
    d1, d2, x, a2, error = gradients(layer, batch)
    torch.testing.assert_close(d1, (x * (layer.r.T @ torch.diag(layer.d2) @ error)).mean(dim=1))
    torch.testing.assert_close(d2, (a2 * error).mean(dim=1))


def test_dfa_sends_a_random_matrix_of_its_own_over_the_whole_batch(layer, batch):
    attach_rule(layer, Rule.DFA, seed=5)
    d1, d2, x, a2, error = gradients(layer, batch)
    feedback = torch.randn(OUTPUTS, FEATURES, generator=feedback_generator(5))
    torch.testing.assert_close(d1, (x * (feedback.T @ error)).mean(dim=1))
    torch.testing.assert_close(d2, (a2 * error).mean(dim=1))


def test_dfa_r_sends_r_transposed_without_d2_and_a_later_change_of_d2_does_not_matter(layer, batch):
    attach_rule(layer, Rule.DFA_R)
    with torch.no_grad():
        layer.d2.mul_(-2)
    d1, _, x, _, error = gradients(layer, batch)
    torch.testing.assert_close(d1, (x * (layer.r.T @ error)).mean(dim=1))


def test_shallow_trains_d2_alone(layer, batch):
    attach_rule(layer, Rule.SHALLOW)
    d1, d2, _, a2, error = gradients(layer, batch)
    assert d1 is None or not d1.any()
    torch.testing.assert_close(d2, (a2 * error).mean(dim=1))


def test_attainable_cosine_is_the_best_over_diagonals_found_by_search():
    torch.manual_seed(2)
    r, feedback = torch.randn(3, 8), torch.randn(3, 8)
    d2 = torch.randn(3, requires_grad=True)
    optimizer = torch.optim.Adam([d2], lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        cosine = torch.cosine_similarity((d2[:, None] * r).flatten(), feedback.flatten(), dim=0)
        (-cosine).backward()
        optimizer.step()
    assert attainable_cosine(r, feedback) == pytest.approx(cosine.item(), abs=1e-4)
    assert attainable_cosine(r, 3 * r) == pytest.approx(1)


@pytest.mark.parametrize("features", [10, 100, 1000])
def test_a_random_feedback_comes_no_nearer_than_about_one_over_the_root_of_the_features(features):
    found = [attainable_cosine(torch.randn(10, features), torch.randn(10, features)) for _ in range(50)]
    assert sum(found) / len(found) == pytest.approx(features**-0.5, rel=0.1)


def test_only_rules_that_can_agree_with_the_gradient_train_d1():
    wrong = {}
    for rule in Rule:
        torch.manual_seed(1)
        teacher, layer = RDLayer(40, 4), RDLayer(40, 4)
        layer.r.copy_(teacher.r)
        x = torch.randn(1000, 40)
        y = teacher(x).argmax(dim=1)
        attach_rule(layer, rule)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.2)
        for _ in range(60):
            for part in torch.randperm(1000).split(100):
                optimizer.zero_grad()
                summed_binary_cross_entropy(layer(x[part]), y[part]).backward()
                optimizer.step()
        wrong[rule] = (layer(x).argmax(dim=1) != y).float().mean().item()
    assert max(wrong[Rule.BP], wrong[Rule.DFA_R]) < 0.6, wrong
    assert min(wrong[Rule.DFA], wrong[Rule.SHALLOW]) > 0.63, wrong
