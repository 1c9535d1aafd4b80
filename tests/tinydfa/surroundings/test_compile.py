"""`torch.compile` in the ways a script may use it: before attach, around the step, with batches of other sizes."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from tests.tinydfa.nets import Mlp, assert_gradients, batch, gradients_of, mlp_rule
from tinydfa import DFA, DFALayer, Method, attach

pytestmark = [  # raised inside torch.compile itself
    pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.autograd.function.Function.* should not be instantiated"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf Tensor:UserWarning"),
]


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, fullgraph=True, backend="aot_eager")


def eager(method: str, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    net = Mlp()
    attachment = attach(net, method)
    attachment.target = y
    cross_entropy(net(x), y).backward()
    return gradients_of(net)


def test_attach_after_compile():
    net, (x, y) = Mlp(), batch()
    forward = compiled(net)
    cross_entropy(forward(x), y).backward()
    net.zero_grad()
    attach(forward, "dfa")
    cross_entropy(forward(x), y).backward()
    assert_gradients(net, eager("dfa", x, y))


def test_batches_of_other_sizes():
    net = Mlp()
    attach(net, "dfa")
    forward = compiled(net)
    for samples in (8, 5, 11, 1):
        x, y = batch(samples)
        net.zero_grad()
        cross_entropy(forward(x), y).backward()
        assert_gradients(net, eager("dfa", x, y))


def test_switching_through_all_methods_on_one_compiled_model():
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, "bp")
    forward = compiled(net)
    for method in Method:
        attachment.method = method
        net.zero_grad()
        attachment.target = y
        cross_entropy(forward(x), y).backward()
        assert_gradients(net, eager(method, x, y))


@pytest.mark.parametrize("order", ["attach first", "compile first"])
def test_a_model_that_is_compiled_in_place(order):
    net, (x, y) = Mlp(), batch()
    if order == "compile first":
        net.compile(fullgraph=True, backend="aot_eager")
        net(x)
    attachment = attach(net, "dfa")
    if order == "attach first":
        net.compile(fullgraph=True, backend="aot_eager")
    for method in ("dfa", "bp", "dfa"):
        attachment.method = method
        net.zero_grad()
        cross_entropy(net(x), y).backward()
        assert_gradients(net, eager(method, x, y))


def test_an_attached_model_within_a_compiled_step_switches_and_leaves():
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, "dfa")
    step = torch.compile(lambda x, y: cross_entropy(net(x), y), fullgraph=True, backend="aot_eager")
    for method in ("dfa", "bp", "shallow", "fa", "dfa"):
        attachment.method = method
        net.zero_grad()
        step(x, y).backward()
        assert_gradients(net, eager(method, x, y))
    attachment.detach()
    net.zero_grad()
    step(x, y).backward()
    assert_gradients(net, eager("bp", x, y))


def test_compiled_parts_of_an_attached_model():
    net, (x, y) = Mlp(), batch()
    attach(net, "dfa")
    net.hidden[1] = torch.compile(net.hidden[1], backend="aot_eager")
    net.hidden[2].compile(backend="aot_eager")
    cross_entropy(net(x), y).backward()
    found = {name.replace("_orig_mod.", ""): gradient for name, gradient in gradients_of(net).items()}
    expected = eager("dfa", x, y)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient)


def test_a_compiled_model_called_from_another_thread():
    net, (x, y) = Mlp(), batch()
    attach(net, "dfa")
    forward = compiled(net)
    forward(x)
    outputs: list[Tensor] = []
    thread = threading.Thread(target=lambda: outputs.append(forward(x)))
    thread.start()
    thread.join()
    cross_entropy(outputs[0], y).backward()
    assert_gradients(net, eager("dfa", x, y))


def test_many_models_in_one_process():
    """The compiler counts recompilations per function; models must not share one count."""
    x, y = batch()
    for _ in range(12):
        net = Mlp()
        attach(net, "dfa")
        cross_entropy(compiled(net)(x), y).backward()
    assert_gradients(net, eager("dfa", x, y))


def test_one_graph_holds_points_and_head():
    graphs = []

    def count(graph: torch.fx.GraphModule, inputs: list[Tensor]):
        (output,) = [node for node in graph.graph.nodes if node.op == "output"]
        graphs.append(len(output.args[0]))
        return graph.forward

    net, (x, y) = Mlp(), batch()
    attach(net, "dfa")
    net(x)  # draws the matrix
    cross_entropy(torch.compile(net, fullgraph=True, backend=count)(x), y)
    assert graphs == [1]  # one graph, which returns the model's output and no activation


def test_a_compiled_step_around_the_model():
    net, (x, y) = Mlp(), batch()
    attach(net, "dfa")
    step = torch.compile(lambda x, y: cross_entropy(net(x), y), fullgraph=True, backend="aot_eager")
    step(x, y).backward()
    assert_gradients(net, eager("dfa", x, y))


@pytest.mark.parametrize("method", ["dfa", "drtp", "fa"])
def test_compiled_checkpoints(method):
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, method)
    attachment.target = y
    forward = torch.compile(lambda x: checkpoint(net, x, use_reentrant=False), backend="aot_eager")
    cross_entropy(forward(x), y).backward()
    assert_gradients(net, eager(method, x, y))


def test_a_bare_head_compiles():
    net, (x, y) = Mlp(), batch()
    model = nn.Sequential(net, DFA(list(net.points)))
    forward = compiled(model)
    for _ in range(2):
        net.zero_grad()
        cross_entropy(forward(x), y).backward()
        assert_gradients(net, mlp_rule(net, x, y, model[1].feedback_matrix, lambda e: e))


class Graphs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = Mlp()

    def forward(self, x: Tensor, sample: Tensor) -> Tensor:
        return torch.zeros(3, 3).index_add(0, sample, self.net(x))


def test_rows_by_index_compile():
    sample, (x, _), (_, y) = torch.tensor([0, 2, 2, 1, 0, 2, 1, 2]), batch(), batch(3)
    found = []
    for build in (lambda model: model, compiled):
        model = Graphs()
        attachment = attach(model, "dfa")
        with attachment.samples(sample):
            output = build(model)(x, sample)
        cross_entropy(output, y).backward()
        found.append(gradients_of(model))
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient)


def test_an_error_that_is_not_finite_is_refused_in_a_compiled_model_too():
    net, (x, _) = Mlp(), batch()
    attach(net, "dfa")
    output = compiled(net)(x)
    with pytest.raises(Exception, match="not finite in 8 of 8 samples"):
        (output * float("nan")).sum().backward()


def test_points_in_a_plain_list_compile():
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.below, self.top, self.points = nn.Linear(6, 5), nn.Linear(5, 3), [DFALayer()]
            self.dfa = DFA(self.points)

        def forward(self, x: Tensor) -> Tensor:
            return self.dfa(self.top(self.points[0](torch.tanh(self.below(x)))))

    torch.manual_seed(0)
    net, (x, y) = Listed(), batch()
    cross_entropy(compiled(net)(x), y).backward()
    found = gradients_of(net)
    net.zero_grad()
    cross_entropy(net(x), y).backward()
    assert_gradients(net, found)
