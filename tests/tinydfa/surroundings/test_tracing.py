"""An exported or traced program holds what the model computes, and not the rule it trains by."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.tinydfa.nets import ConvNet, Mlp, batch, gradients_of
from tinydfa import DFA, DFAError, attach
from tinydfa.errors import PointError

pytestmark = [  # raised inside torch itself
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning"),
]
Program = Callable[[Tensor], Tensor]


def exported(model: nn.Module, x: Tensor) -> Program:
    return torch.export.export(model, (x,)).module()


def exported_strictly(model: nn.Module, x: Tensor) -> Program:
    return torch.export.export(model, (x,), strict=True).module()


def exported_by_name(model: nn.Module, x: Tensor) -> Program:
    shapes = {"x": {0: torch.export.Dim("samples")}}
    return torch.export.export(model, (x,), dynamic_shapes=shapes).module()


def traced(model: nn.Module, x: Tensor) -> Program:
    return torch.jit.trace(model, x)


def traced_symbolically(model: nn.Module, x: Tensor) -> Program:
    return torch.fx.symbolic_trace(model)


WAYS = [exported, exported_strictly, exported_by_name, traced, traced_symbolically]


def own_head() -> nn.Module:
    net = Mlp()
    return nn.Sequential(net, DFA(list(net.points)))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", ["dfa", "shallow", "fa", "brsf"])
def test_a_program_computes_what_the_model_computes(way, method):
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, method)
    program = way(net, x)
    with torch.no_grad():
        torch.testing.assert_close(program(x), Mlp()(x))
    cross_entropy(net(x), y).backward()
    found = gradients_of(net)
    net.zero_grad()
    if method != "brsf":  # draws anew every pass
        cross_entropy(net(x), y).backward()
        assert all(torch.equal(found[name], gradient) for name, gradient in gradients_of(net).items())
    assert attachment.method == method


@pytest.mark.parametrize("way", [exported, exported_strictly, traced, traced_symbolically])
def test_a_program_of_a_model_with_a_head_of_its_own(way):
    model, (x, _) = own_head(), batch()
    torch.testing.assert_close(way(model, x)(x), Mlp()(x))


class Pair(nn.Module):
    """A block that returns what it computes and something beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.tanh(self.linear(x))
        return h, h.square()


class Pairs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks, self.top = nn.ModuleList([Pair(), Pair()]), Pair()

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x, beside = block(x)
        return self.top(x + beside)[0]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("points", ["blocks.*", "blocks.*[1]"])
def test_a_program_of_a_model_whose_blocks_return_several_tensors(way, points):
    model, (x, _) = Pairs(), batch()
    attach(model, "dfa", points=[points], output="top")
    program = way(model, x)
    with torch.no_grad():
        torch.testing.assert_close(program(x), Pairs()(x))


@pytest.mark.parametrize("method", ["dfa", "fa"])
def test_convolutions_are_exported_as_they_are(method):
    net, (x, _) = ConvNet(), batch(4, 2, 8, 8)
    attach(net, method)
    program, plain = (torch.export.export(model, (x,)).graph for model in (net, ConvNet()))
    steps = [[node.target for node in graph.nodes if node.op == "call_function"] for graph in (program, plain)]
    assert steps[0] == steps[1]


@pytest.mark.parametrize("method", ["dfa", "fa"])
def test_a_traced_model_can_be_saved(method, tmp_path):
    net, (x, _) = Mlp(), batch()
    attach(net, method)
    torch.jit.trace(net, x).save(tmp_path / "model.pt")
    torch.testing.assert_close(torch.jit.load(tmp_path / "model.pt")(x), net(x))


def test_a_symbolic_trace_names_the_arguments():
    class Two(Mlp):
        def forward(self, x: Tensor, gain: float = 2.0) -> Tensor:
            return super().forward(x) * gain

    net = Two()
    attach(net, "dfa")
    graph = torch.fx.symbolic_trace(net).graph
    assert [node.target for node in graph.nodes if node.op == "placeholder"] == ["x", "gain"]


def test_a_graph_that_shares_its_modules_with_an_attached_model_does_not_train_by_half():
    net, (x, _) = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)), batch()
    attachment = attach(net, "dfa", points=["1"])
    graph = torch.fx.symbolic_trace(net)
    with pytest.raises(PointError, match=r"graph traced from it.*attachment\.detach"):
        graph(x)
    attachment.detach()
    graph(x).sum().backward()
    assert gradients_of(net).keys() == {"0.weight", "0.bias", "2.weight", "2.bias"}


@pytest.mark.parametrize("make", [torch.jit.script, lambda net: torch.jit.trace(net, batch()[0])])
@pytest.mark.parametrize("within", [False, True])
def test_a_program_is_not_attached_to(make, within):
    net = make(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)))
    model, point = (nn.Sequential(net, nn.Linear(3, 3)), "0") if within else (net, "1")
    with pytest.raises(DFAError, match=f"{point if within else 'Module'}.* was made by .*Attach to the model before"):
        attach(model, "dfa", points=[point])


@pytest.mark.parametrize("within", [False, True])
def test_a_script_is_refused_with_the_way_out(within):
    net = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    attachment = attach(net, "dfa", points=["1"])
    model = nn.Sequential(net) if within else net
    with pytest.raises(DFAError, match=r"torch\.jit\.script.*attachment\.detach\(\)"):
        torch.jit.script(model)
    attachment.detach()
    x, _ = batch()
    torch.testing.assert_close(torch.jit.script(model)(x), net(x))
