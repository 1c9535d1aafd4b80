"""`AlignmentMeasurement` of the 2020 release: cosines per leaf module and sample, keyed by module."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.tinydfa.nets import batch, error_of, fill
from tinydfa import DFA, DFAError, DFALayer
from tinydfa.alignment import AlignmentMeasurement


class Net(nn.Module):
    def __init__(self, **options) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3, self.act = nn.Linear(6, 5), nn.Linear(5, 7), nn.Linear(7, 3), nn.Tanh()
        self.dfa1, self.dfa2 = DFALayer(), DFALayer()
        self.dfa = DFA([self.dfa1, self.dfa2], **options)
        fill(self, torch.Generator().manual_seed(0))

    def forward(self, x: Tensor) -> Tensor:
        x = self.dfa1(torch.tanh(self.fc1(x)))
        x = self.dfa2(torch.tanh(self.fc2(x)))
        return self.dfa(self.fc3(x))


@torch.no_grad()
def by_hand(net: Net, x: Tensor, y: Tensor) -> dict[nn.Module, Tensor]:
    """Cosine of every sample at the outputs of the three linear layers."""
    h1 = torch.tanh(net.fc1(x))
    h2 = torch.tanh(net.fc2(h1))
    e = error_of(net.fc3(h2), y)
    p = e @ net.dfa.feedback_matrix / 7**0.5
    bp2 = e @ net.fc3.weight * (1 - h2**2)
    bp1 = bp2 @ net.fc2.weight * (1 - h1**2)
    pairs = {net.fc1: (p[:, :5] * (1 - h1**2), bp1), net.fc2: (p * (1 - h2**2), bp2), net.fc3: (e, e)}
    return {m: (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)) for m, (a, b) in pairs.items()}


@pytest.mark.parametrize("own_copy", [False, True])
def test_angles_and_alignments_per_module(own_copy):
    net, (x, y) = Net(), batch()
    bp_model = copy.deepcopy(net) if own_copy else None
    measure = AlignmentMeasurement(net, torch.device("cpu"), sensitivity=1e-8, bp_model=bp_model)
    for _ in range(2):  # also after the first forward pass, and after a step
        angles, alignments = measure.measure_alignment(x, y, cross_entropy)
        expected = by_hand(net, x, y)
        assert expected.keys() <= angles.keys() == alignments.keys()
        for module, cosines in expected.items():
            torch.testing.assert_close(angles[module], cosines, atol=1e-5, rtol=1e-4)
            mean, std = alignments[module]
            assert mean == pytest.approx(float(cosines.mean()), abs=1e-5)
            assert std == pytest.approx(float(cosines.std()), abs=1e-5)
        assert not any(isinstance(module, DFALayer) for module in angles)
        torch.optim.SGD(net.parameters(), lr=0.1).step()


def test_training_goes_on_as_before_after_a_measurement():
    net, (x, y) = Net(), batch()
    cross_entropy(net(x), y).backward()
    truth = [p.grad.clone() for p in net.parameters()]
    measure = AlignmentMeasurement(net, torch.device("cpu"))
    measure.measure_alignment(x, y, cross_entropy)
    net.zero_grad()
    cross_entropy(net(x), y).backward()
    for p, gradient in zip(net.parameters(), truth, strict=True):
        torch.testing.assert_close(p.grad, gradient)
    assert not any(module._forward_hooks or module._backward_hooks for module in net.modules())


def test_samples_outside_the_loss_count_as_aligned_as_they_did():
    net, (x, y) = Net(), batch()
    mask = torch.tensor([1, 1, 0, 1, 0, 1, 1, 1], dtype=torch.bool)
    measure = AlignmentMeasurement(net, "cpu")
    angles, _ = measure.measure_alignment(x, y, lambda output, y: cross_entropy(output[mask], y[mask]))
    assert angles[net.fc1][~mask].tolist() == [1.0, 1.0]
    torch.testing.assert_close(angles[net.fc1][mask], by_hand(net, x[mask], y[mask])[net.fc1], atol=1e-5, rtol=1e-4)


def test_a_model_of_the_shallow_baseline_is_measured_above_its_points_alone():
    net, (x, y) = Net(no_training=True), batch()
    angles, _ = AlignmentMeasurement(net, "cpu").measure_alignment(x, y, cross_entropy)
    assert net.fc1 not in angles
    torch.testing.assert_close(angles[net.fc3], torch.ones(8))


def test_batch_statistics_move_no_more_than_in_one_pass():
    net, (x, y) = Net(), batch()
    model = nn.Sequential(nn.BatchNorm1d(6), net)
    AlignmentMeasurement(model, "cpu").measure_alignment(x, y, cross_entropy)
    assert model[0].num_batches_tracked <= 1


def test_a_model_without_a_head_is_refused():
    with pytest.raises(DFAError, match="no DFA head"):
        AlignmentMeasurement(nn.Linear(2, 2), "cpu")
