"""Projectors in the place of the feedback matrix: what reaches the layers, and what is known of the matrix they are."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from tests.tinydfa.nets import Mlp, assert_gradients, batch, mlp_rule
from tinydfa import DFAError, Feedback, Matrix, NeverStored, OpticalUnit, attach, doctor, measure_alignment


def drawn(rows: int, columns: int) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(4))


def ternary(e: torch.Tensor) -> torch.Tensor:
    return torch.sign(e) * (e.abs() > e.abs().mean())


def test_a_matrix_of_ones_own_projects_like_one_that_was_drawn():
    net, (x, y), matrix = Mlp(), batch(), drawn(3, 7)
    attach(net, "dfa", feedback=Matrix(matrix))
    cross_entropy(net(x), y).backward()
    assert_gradients(net, mlp_rule(net, x, y, matrix, lambda e: e))


def test_any_callable_projects_and_scaling_can_be_switched_off():
    net, (x, y), matrix = Mlp(), batch(), drawn(3, 7)
    attach(net, "sdfa", feedback=Feedback(projector=lambda s, columns: s @ matrix[:, :columns], scaling="none"))
    cross_entropy(net(x), y).backward()
    assert_gradients(net, mlp_rule(net, x, y, matrix, torch.sign, scale=lambda width: 1.0))


def test_a_quiet_optical_unit_projects_the_ternary_error():
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, "dfa", feedback=OpticalUnit(seed=3))
    cross_entropy(net(x), y).backward()
    matrix = Feedback(distribution="gaussian", seed=3).draw(3, 7)
    assert_gradients(net, mlp_rule(net, x, y, matrix, ternary))
    with pytest.raises(DFAError, match="loss scale"):
        (cross_entropy(net(x), y) * 2.0**16).backward()
    attachment.loss_scale = 2.0**16
    (cross_entropy(net(x), y) * 2.0**16).backward()


def test_the_noise_of_an_optical_unit_is_a_share_of_the_light():
    encoded = torch.ones(400, 3)
    light, noisy = (OpticalUnit(threshold=0.5, noise=noise)(encoded, 50) for noise in (0.0, 0.1))
    spread = (noisy - light).std() / light.square().mean().sqrt()
    assert 0.08 < float(spread) < 0.12


def test_feedback_that_is_never_stored_is_the_same_in_blocks_of_every_size():
    encoded = drawn(5, 3)
    whole = NeverStored(seed=2, block=1000)(encoded, 23)
    torch.testing.assert_close(NeverStored(seed=2, block=4)(encoded, 23), whole)
    assert not torch.allclose(NeverStored(seed=3)(encoded, 23), whole)


def test_the_entries_of_feedback_that_is_never_stored_are_uniform_and_unrelated():
    matrix = NeverStored(seed=5).columns(200, 0, 300, torch.empty((), dtype=torch.float64))
    assert -1 <= matrix.min() < -0.999
    assert 0.999 < matrix.max() < 1
    assert abs(matrix.mean()) < 5 / (3 * matrix.numel()) ** 0.5
    assert abs(matrix.var() - 1 / 3) < 0.01
    neighbours = [matrix[:, 1:] * matrix[:, :-1], matrix[1:] * matrix[:-1]]
    assert all(abs(product.mean()) < 5 / 3 / product.numel() ** 0.5 for product in neighbours)


def test_the_effective_matrix_is_found_by_unit_vectors():
    net, (x, y) = Mlp(), batch()
    projector = NeverStored(seed=1)
    attachment = attach(net, "dfa", feedback=projector)
    assert attachment.effective_feedback() is None
    cross_entropy(net(x), y).backward()
    matrix = projector.columns(3, 0, 7, x)
    torch.testing.assert_close(attachment.effective_feedback(), matrix)
    net.zero_grad()
    cross_entropy(net(x), y).backward()
    assert_gradients(net, mlp_rule(net, x, y, matrix, lambda e: e))
    found = measure_alignment(net, lambda net: cross_entropy(net(x), y))
    assert found["top.weight"].mean == pytest.approx(1.0)
    report = doctor(net, (x, y), lambda net, b: cross_entropy(net(b[0]), b[1]), compile=False)
    assert report.feedback_bytes == 0
    assert "NeverStored" in str(report)


def test_a_state_is_refused_by_another_projector():
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, "dfa", feedback=OpticalUnit(seed=1))
    cross_entropy(net(x), y).backward()
    state = attachment.state_dict()
    attachment.load_state_dict(state)
    other = Mlp()
    strange = attach(other, "dfa", feedback=OpticalUnit(seed=2))
    cross_entropy(other(x), y).backward()
    with pytest.raises(DFAError, match="not the one that the state was saved with"):
        strange.load_state_dict(state)
    with pytest.raises(DFAError, match="with a projector"):
        attach(Mlp(), "dfa").load_state_dict(state)


def test_what_a_projector_decides_is_not_said_twice():
    with pytest.raises(ValueError, match="distribution, density and seed"):
        Feedback(projector=OpticalUnit(), seed=3)
    with pytest.raises(DFAError, match="seed=3"):
        attach(Mlp(), "dfa", feedback=OpticalUnit(), seed=3)
    with pytest.raises(DFAError, match="seed=3"):
        attach(Mlp(), "dfa", feedback=Feedback(seed=1), seed=3)
    with pytest.raises(DFAError, match="dkp changes its feedback"):
        attach(Mlp(), "dkp", feedback=OpticalUnit())
