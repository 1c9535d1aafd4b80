"""Adam row by row against Adam, and clipping against torch's own."""

import pytest
import torch
from torch import nn

from recsys.layers import FieldTable
from recsys.optimizers import clip_norm, make_optimizers


class Net(nn.Module):
    def __init__(self, sparse):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.top = FieldTable(6, 3, sparse=sparse), nn.Linear(3, 1)

    def forward(self, rows):
        return self.top(self.table(rows).sum(dim=1))


def trained(sparse, steps, limit=None):
    net = Net(sparse)
    optimizers = make_optimizers(net, 0.1)
    for rows in steps:
        for optimizer in optimizers:
            optimizer.zero_grad()
        net(torch.tensor(rows)).square().sum().backward()
        if limit is not None:
            clip_norm(net.parameters(), limit)
        for optimizer in optimizers:
            optimizer.step()
    return net, optimizers


def test_rows_that_are_in_every_batch_train_as_under_adam():
    steps = [[[0, 1], [1, 2]], [[2, 1], [0, 0]], [[1, 2], [2, 0]]]
    sparse, dense = trained(True, steps)[0], trained(False, steps)[0]
    torch.testing.assert_close(sparse.table.weight[:3], dense.table.weight[:3])


def test_rows_outside_a_batch_stay_as_they_are():
    before = Net(True).table.weight[3:].clone()
    net, optimizers = trained(True, [[[0, 1], [1, 2]], [[2, 1], [0, 0]]])
    assert torch.equal(net.table.weight[3:], before)
    assert [type(optimizer).__name__ for optimizer in optimizers] == ["Adam", "SparseAdam"]


@pytest.mark.parametrize("limit", [0.01, 1e6])
def test_gradients_are_clipped_together_as_by_torch(limit):
    rows = torch.tensor([[0, 1], [1, 1], [5, 0]])
    sparse, dense = Net(True), Net(False)
    for net in (sparse, dense):
        net(rows).square().sum().backward()
    clip_norm(sparse.parameters(), limit)
    torch.nn.utils.clip_grad_norm_(dense.parameters(), limit)
    torch.testing.assert_close(sparse.table.weight.grad.to_dense(), dense.table.weight.grad)
    torch.testing.assert_close(sparse.top.weight.grad, dense.top.weight.grad)


def test_a_clipped_sparse_gradient_is_one_that_the_optimizer_takes():
    net, _ = trained(True, [[[0, 1], [1, 1]]], limit=0.01)
    assert torch.isfinite(net.table.weight).all()
