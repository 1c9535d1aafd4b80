"""Adam row by row against Adam, and clipping against torch's own."""

import pytest
import torch
from torch import nn

from harness.processes import Processes
from recsys import optimizers as module
from recsys.models.embeddings import FieldTable
from recsys.optimizers import clip_norm, make_optimizers


class Net(nn.Module):
    def __init__(self, sparse):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.top = FieldTable(6, 3, sparse=sparse), nn.Linear(3, 1)

    def forward(self, rows):
        return self.top(self.table(rows).sum(dim=1))


def trained(sparse, steps, limit=None, net=None):
    net = net or Net(sparse)
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
    assert [type(optimizer).__name__ for optimizer in optimizers] == ["TableAdam", "SparseAdam"]


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


# Gradients in the memory of earlier ones


class Plain(Net):
    """The same network on torch's own embedding, whose gradients are new in every step."""

    def __init__(self):
        super().__init__(False)
        self.table = nn.Embedding.from_pretrained(self.table.weight.detach(), freeze=False)


STEPS = [[[0, 1], [1, 2]], [[5, 1], [0, 0]], [[3, 3], [3, 4]], [[2, 0], [2, 0]]]


@pytest.mark.parametrize("limit", [None, 0.01])
@pytest.mark.parametrize("repeats", [1, 2])  # rows of a batch: fewer than the table has, and more
def test_a_table_trains_in_reused_memory_as_torchs_embedding_does(limit, repeats):
    steps = [step * repeats for step in STEPS]
    ours, theirs = trained(False, steps, limit)[0], trained(False, steps, limit, Plain())[0]
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def backward(net, rows):
    net(torch.tensor(rows)).square().sum().backward()


def test_a_gradient_lies_where_the_one_before_it_lay():
    net = Net(False)
    (optimizer,) = make_optimizers(net, 0.1)
    places = []
    for rows in STEPS:
        optimizer.zero_grad()
        assert net.table.weight.grad is None
        backward(net, rows)
        places.append(net.table.weight.grad.data_ptr())
    assert len(set(places)) == 1


def test_gradients_of_two_passes_add_up_and_leave_nothing_behind():
    ours, theirs = Net(False), Plain()
    (optimizer,) = make_optimizers(ours, 0.1)
    for rows in STEPS[:2]:
        backward(ours, rows)
    optimizer.zero_grad()
    for rows in STEPS[2:]:
        backward(ours, rows)
        backward(theirs, rows)
    torch.testing.assert_close(ours.table.weight.grad, theirs.table.weight.grad)


def test_a_gradient_that_was_asked_for_is_not_written_to_again():
    net = Net(False)
    (optimizer,) = make_optimizers(net, 0.1)
    backward(net, STEPS[0])
    optimizer.zero_grad()
    (mine,) = torch.autograd.grad(net(torch.tensor(STEPS[1])).sum(), net.table.weight)
    before = mine.clone()
    backward(net, STEPS[2])
    optimizer.zero_grad()
    backward(net, STEPS[3])
    assert torch.equal(mine, before)


def test_gradients_that_hold_other_processes_rows_are_not_reused(monkeypatch):
    net = Net(False)
    (optimizer,) = make_optimizers(net, 0.1)
    backward(net, STEPS[0])
    net.table.weight.grad += 1  # averaged with that of another batch
    monkeypatch.setattr(module, "current", lambda: Processes(0, 2))
    optimizer.zero_grad()
    backward(net, STEPS[2])
    assert net.table.weight.grad[[0, 1, 2, 5]].abs().max() == 0


def test_passes_without_an_optimizer_do_not_pile_up_rows():
    net = Net(False)
    for _ in range(100):
        backward(net, STEPS[0])
    assert sum(len(rows) for rows in net.table.touched) < 2 * len(net.table.weight)
