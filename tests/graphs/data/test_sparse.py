import torch

from graphs.data.sparse import SparseMatrix


def sample(rows=6, columns=4):
    torch.manual_seed(0)
    return torch.randn(rows, columns) * (torch.rand(rows, columns) < 0.5)


def test_product_and_gradient_equal_those_of_the_dense_matrix():
    dense = sample()
    ours, theirs = (torch.ones(4, 3).requires_grad_() for _ in range(2))
    weight = torch.randn(6, 3)
    product = SparseMatrix.from_dense(dense) @ ours
    torch.testing.assert_close(product, dense @ theirs)
    (product * weight).sum().backward()
    (dense @ theirs * weight).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_entries_may_come_in_any_order_and_survive_a_round_trip():
    dense = sample()
    row, column = dense.nonzero(as_tuple=True)
    shuffled = torch.randperm(row.numel())
    matrix = SparseMatrix(row[shuffled], column[shuffled], dense[row, column][shuffled], (6, 4))
    torch.testing.assert_close(matrix.to_dense(), dense)
    torch.testing.assert_close(matrix.transposed.to_dense(), dense.t())


def test_dropout_drops_and_rescales_entries_in_both_directions_of_the_product():
    dense = torch.ones(200, 50)
    dropped = SparseMatrix.from_dense(dense).dropout(0.25, training=True)
    forward, backward = dropped.to_dense(), dropped.transposed.to_dense().t()
    torch.testing.assert_close(forward, backward)
    assert set(forward.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert abs((forward == 0).float().mean().item() - 0.25) < 0.02


def test_dropout_does_nothing_outside_training():
    matrix = SparseMatrix.from_dense(sample())
    assert matrix.dropout(0.5, training=False) is matrix
    assert matrix.dropout(0.0, training=True) is matrix
