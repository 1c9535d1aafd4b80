"""`doctor` on models that train, but not in every part: frozen heads, adapters, sparse and shared tables."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinydfa import Fault, Status, attach, doctor


def examined(model: nn.Module, x: Tensor):
    return doctor(model, x, lambda net, x: net(x).square().mean(), compile=False, autocast=False)


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


class Words(nn.Module):
    """A table of words, a hidden layer, and an output that is the table again or a layer of its own."""

    def __init__(self, shares: str = "", sparse: bool = False, skip: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.hidden, self.act = nn.Embedding(9, 4, sparse=sparse), nn.Linear(4, 4), nn.Tanh()
        self.out = nn.Linear(4, 9, bias=False)
        self.skip, self.functional = skip, shares == "functional"
        if shares == "module":
            self.out.weight = self.table.weight
        elif self.functional:
            del self.out

    def forward(self, ids: Tensor) -> Tensor:
        x = self.table(ids)
        h = self.act(self.hidden(x))
        h = h + x if self.skip else h
        return F.linear(h, self.table.weight) if self.functional else self.out(h)


IDS = torch.tensor([[0, 3, 5], [2, 8, 3]])


def test_a_frozen_head_feeds_the_layers_below_it():
    net = mlp()
    net[4].requires_grad_(False)
    attach(net, "dfa", points=["1", "3"])
    report = examined(net, torch.randn(7, 6))
    assert report.healthy
    assert report.parameters["4.weight"] is report.parameters["4.bias"] is Status.FROZEN
    assert report.parameters["0.weight"] is report.parameters["2.bias"] is Status.METHOD


class Adapted(nn.Module):
    """A frozen layer and a low-rank one beside it, whose upper matrix starts at zero."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.base, self.down, self.up = nn.Linear(inputs, outputs), nn.Linear(inputs, 2, False), nn.Linear(2, outputs)
        self.base.requires_grad_(False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


def test_adapters_that_start_at_zero_wait_for_their_upper_matrix_and_are_no_finding():
    torch.manual_seed(0)
    net = nn.Sequential(Adapted(6, 5), nn.Tanh(), Adapted(5, 4), nn.Tanh(), nn.Linear(4, 3).requires_grad_(False))
    attach(net, "dfa", points=["1", "3"])
    report = examined(net, torch.randn(7, 6))
    assert report.healthy
    assert report.waiting == ("0.down.weight", "2.down.weight")
    assert report.parameters["0.up.weight"] is Status.METHOD
    assert "as in backpropagation: 0.down.weight, 2.down.weight" in str(report)


def test_a_dead_layer_stays_a_finding_where_no_matrix_is_zero():
    net = mlp()
    net[1] = nn.ReLU()
    with torch.no_grad():
        net[0].bias.fill_(-1000.0)
    attach(net, "dfa", points=["1", "3"])
    assert examined(net, torch.randn(7, 6)).faults() >= {Fault.ZERO_GRADIENT}


def test_sparse_gradients_are_read_like_dense_ones():
    reports = []
    for sparse in (False, True):
        net = Words(sparse=sparse)
        attach(net, "dfa", points=["act"])
        reports.append(examined(net, IDS))
    assert reports[0].healthy
    assert reports[0].parameters == reports[1].parameters
    assert reports[1].parameters["table.weight"] is Status.METHOD


@pytest.mark.parametrize("shares", ["module", "functional"])
def test_a_table_that_is_also_the_output_layer_is_no_path_around_the_points(shares):
    net = Words(shares)
    attach(net, "dfa", points=["act"])
    report = examined(net, IDS)
    assert report.healthy
    assert report.crossed == ()
    assert report.shared == ("table.weight",)
    assert "used below and above the points, and trained from both: table.weight" in str(report)


def test_a_shared_weight_that_autocast_casts_once_for_both_layers_is_no_path_either():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    net[2].weight = net[0].weight
    attach(net, "dfa", points=["1"])

    def loss(net, x):
        with torch.autocast("cpu", torch.bfloat16):
            return net(x).float().square().mean()

    report = doctor(net, torch.randn(5, 4), loss, compile=False, autocast=False)
    assert report.healthy
    assert report.shared == ("0.weight",)


@pytest.mark.parametrize("shares", ["", "module", "functional"])
def test_a_path_around_a_point_is_found_whether_or_not_the_table_is_shared(shares):
    net = Words(shares, skip=True)
    attach(net, "dfa", points=["act"])
    report = examined(net, IDS)
    assert [finding.where for finding in report.findings] == [("table.weight",)]
    assert report.crossed == ("act",)
    assert "backpropagation leads around: act" in str(report)


def test_one_line_says_that_no_gradient_crosses_a_point():
    net = mlp()
    attachment = attach(net, "dfa", points=["1", "3"])
    assert "\nno gradient crosses a point\n" in str(examined(net, torch.randn(7, 6)))
    attachment.method = "fa"
    assert "\nfa cuts no gradient at its points\n" in str(examined(net, torch.randn(7, 6)))


def test_a_point_that_did_not_run_stands_in_the_table_and_among_the_findings():
    class Spare(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.spare = mlp(), nn.Linear(3, 3)

        def forward(self, x):
            return self.net(x)

    net = Spare()
    attach(net, "dfa", points=["net.1", "net.3", "spare"])
    report = examined(net, torch.randn(7, 6))
    assert report.points == {"net.1": 5, "net.3": 4, "spare": None}
    assert [finding.where for finding in report.findings if finding.fault is Fault.NOT_RUN] == [("spare",)]
    assert "spare         did not run" in str(report)
