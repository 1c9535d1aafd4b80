"""Widths and rows that do not fit together: a `DFAError` that says what was expected, what was found, what to do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.tinydfa.nets import Mlp, batch
from tinydfa import DFA, DFAError, DFALayer, attach


def says(*parts: str):
    """A `DFAError` whose message holds all of `parts`, in this order."""
    return pytest.raises(DFAError, match="(?s)" + ".*".join(parts))


def run(net: nn.Module, x: Tensor, y: Tensor) -> None:
    cross_entropy(net(x), y).backward()


def test_a_width_that_changed():
    below, top, point = nn.Linear(6, 5), nn.AdaptiveAvgPool1d(3), DFALayer("wide")
    model = nn.Sequential(below, point, top)
    attach(model, "dfa", batch_dims=(0,))
    model(torch.randn(4, 2, 6)).sum().backward()
    model[0] = nn.Linear(6, 9)
    with says(
        "'1' reads 18 columns", "has 10", "width changed", r"feedback_matrix = None on the head \(attachment.head\)"
    ):
        model(torch.randn(4, 2, 6))


def test_an_error_width_that_changed():
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, "dfa")
    run(net, x, y)
    net.top = nn.Linear(7, 4)
    with says("error at the head is 4 wide", "drawn for 3", "feedback_matrix = None"):
        run(net, x, y)
    attachment.head.feedback_matrix = None
    run(net, x, y)
    assert attachment.head.feedback_matrix.shape == (4, 7)


def test_rows_that_belong_to_no_sample():
    below, top = nn.Linear(6, 5), nn.Linear(5, 3)
    x = torch.randn(7, 6)
    for index, parts in (
        (None, ("7 rows for 2 rows of the output", r"attachment\.samples\(index\)")),
        (torch.zeros(6, dtype=torch.int64), ("7 rows", r"shape \(6,\)", "one int64 entry")),
        (torch.zeros(7, 1, dtype=torch.int64), ("7 rows", r"shape \(7, 1\)")),
        (torch.tensor([0, 0, 1, 1, 1, 1, 2]), ("2 samples|0 to 1",)),
        (torch.tensor([0, 0, 1, 1, 1, 1, -2]), ("2 samples|0 to 1",)),
    ):
        point = DFALayer("nodes")
        head = DFA([point])
        with says(*parts):
            head(top(point(below(x), index))[:2]).sum().backward()


def test_batch_dims_that_do_not_exist():
    net, (x, y) = Mlp(), batch()
    attach(net, "dfa", batch_dims=(0, 2))
    with says(r"batch_dims \(0, 2\) do not exist in a tensor of 2 dimensions", "DFALayer\\(batch_dims"):
        run(net, x, y)


def test_batch_dims_that_leave_the_output_no_width():
    net, (x, y) = Mlp(), batch()
    attach(net, "dfa", batch_dims=(0, 1))
    with says(r"batch_dims \(0, 1\)", r"no width of an output of shape \(8, 3\)", r"batch_dims={name: \(0, 1\)}"):
        cross_entropy(net(x), y).backward()


def test_batch_dims_reach_a_models_own_head_or_are_refused():
    net = Mlp()
    model = nn.Sequential(net, DFA(list(net.points)))
    try:
        attachment = attach(model, "dfa", batch_dims=(0, 1))
    except DFAError as error:
        assert "batch_dims" in str(error)  # noqa: PT017
        return
    model(torch.randn(2, 4, 6)).sum().backward()
    assert attachment.head.feedback_matrix.shape == (3, 7)
