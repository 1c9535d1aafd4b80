"""Nothing stays stored: after backward, under no_grad, after a forward pass that raised; no growth over a run."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.tinydfa.nets import Mlp, assert_gradients, batch, gradients_of, mlp_rule
from tinydfa import DFA, DFALayer, Feedback, Method, attach, measure_alignment

METHODS = [str(method) for method in Method]


class Headed(nn.Module):
    """An `Mlp` with a head of its own, that was never attached."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Mlp()
        self.dfa = DFA(list(self.net.points))

    def forward(self, x: Tensor) -> Tensor:
        return self.dfa(self.net(x))


def watched(net: Mlp) -> list[weakref.ref]:
    """Weak references to every tensor that leaves a layer in the passes to come (kept by a hook)."""
    seen: list[weakref.ref] = []

    def watch(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        seen.extend(weakref.ref(tensor) for tensor in (*inputs, output))

    for module in net.modules():
        if isinstance(module, DFALayer | nn.Linear):
            module.register_forward_hook(watch, prepend=True)
    return seen


def alive(seen: list[weakref.ref], *outside: Tensor) -> int:
    """How many are still there, those a caller holds aside; reference counts alone must do, without the collector."""
    kept = {id(tensor) for tensor in outside}
    return len({id(ref()) for ref in seen if ref() is not None} - kept)


@pytest.fixture(autouse=True)
def without_the_collector():
    Feedback().draw(1, 1)  # torch sets up an operator in its first call, which leaves frames to the collector
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def build(kind: str, method: str):
    """A model, its `Mlp`, what to call between steps, and what its points and head share."""
    if kind == "bare head":
        model = Headed()
        return model, model.net, lambda y: None, model.dfa.link
    model = Mlp()
    attachment = attach(model, method)
    return model, model, lambda y: setattr(attachment, "target", y), attachment.link


KINDS = [("attached", method) for method in METHODS] + [("bare head", "dfa")]


@pytest.mark.parametrize(("kind", "method"), KINDS)
def test_nothing_stays_stored_after_backward(kind, method):
    model, net, prepare, link = build(kind, method)
    x, y = batch()
    seen = watched(net)
    prepare(y)
    cross_entropy(model(x), y).backward()
    assert len(seen) >= 8
    assert alive(seen, x) == 0
    assert link.current.records == []
    assert link.current.target is None


@pytest.mark.parametrize(("kind", "method"), KINDS)
def test_nothing_stays_stored_when_the_output_is_dropped_without_backward(kind, method):
    model, net, prepare, link = build(kind, method)
    x, y = batch()
    seen = watched(net)
    prepare(y)
    model(x)
    assert alive(seen, x) == 0
    assert link.current.records == []


@pytest.mark.parametrize(("kind", "method"), KINDS)
def test_nothing_stays_stored_under_no_grad(kind, method):
    model, net, prepare, link = build(kind, method)
    x, y = batch()
    seen = watched(net)
    prepare(y)
    with torch.no_grad():
        output = model(x)
    assert not output.requires_grad
    assert alive(seen, x, output) == 0
    assert link.current.records == []
    assert link.current.target is None


def fail_once(net: Mlp, error: type[BaseException], place: str) -> None:
    """Call the network so that a layer in its middle, or its output, raises."""
    layer = net.hidden[2] if place == "middle" else net.top

    def fail(*_: object) -> None:
        raise error

    handle = layer.register_forward_pre_hook(fail)
    try:
        net(batch()[0])
    except error:
        pass
    finally:
        handle.remove()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("place", ["middle", "top"])
@pytest.mark.parametrize("method", METHODS)
def test_a_failed_pass_leaves_nothing_and_changes_nothing(method, place, error):
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, method)
    attachment.target = y
    cross_entropy(net(x), y).backward()
    expected = gradients_of(net)
    net.zero_grad()
    if method == "brsf":  # numbers its passes, the failed one too
        expected = {}
    attachment.target = 0 * y
    seen = watched(net)
    fail_once(net, error, place)
    if error is RuntimeError:
        assert alive(seen) == 0
        assert attachment.link.current.records == []
    attachment.target = y
    cross_entropy(net(x), y).backward()
    if expected:
        assert_gradients(net, expected)
    assert attachment.link.current.records == []
    assert alive(seen, x) == 0


def test_the_target_of_a_failed_pass_is_not_used_by_the_next():
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, "drtp")
    attachment.target = y
    fail_once(net, RuntimeError, "middle")
    with pytest.raises(Exception, match=r"attachment\.target"):
        cross_entropy(net(x), y).backward()


@pytest.mark.parametrize("place", ["middle", "top"])
def test_a_failed_pass_does_not_change_the_next_of_a_bare_head(place):
    model, (x, y) = Headed(), batch()
    cross_entropy(model(x), y).backward()
    model.zero_grad()
    fail_once(model.net, RuntimeError, place)
    cross_entropy(model(x), y).backward()
    assert_gradients(model.net, mlp_rule(model.net, x, y, model.dfa.feedback_matrix, lambda e: e))
    assert model.dfa.link.current.records == []


def test_a_failed_pass_through_another_branch_does_not_train_it():
    """A bare head does not see where a pass begins, and must not join a dead pass to a living one."""
    shared, left, right, top = nn.Linear(6, 4), nn.Linear(4, 5), nn.Linear(4, 5), nn.Linear(5, 3)
    points = [DFALayer() for _ in range(3)]
    head, (x, y) = DFA(points), batch()
    points[1](torch.tanh(left(points[0](torch.tanh(shared(x))))))  # and then it raised
    h = points[2](torch.tanh(right(points[0](torch.tanh(shared(x))))))
    cross_entropy(head(top(h)), y).backward()
    assert left.weight.grad is None
    assert shared.weight.grad is not None


def live_tensors() -> int:
    gc.collect()
    return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())


@pytest.mark.parametrize(("kind", "method"), KINDS)
def test_no_growth_over_a_thousand_steps(kind, method):
    model, _, prepare, _ = build(kind, method)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    x, y = batch()

    def step() -> None:
        prepare(y)
        cross_entropy(model(x), y).backward()
        optimizer.step()

    for _ in range(3):
        step()
    before, objects = live_tensors(), len(gc.get_objects())
    for _ in range(997):
        step()
    assert live_tensors() <= before  # fewer where something of an earlier test was let go meanwhile
    assert len(gc.get_objects()) < objects + 200


def test_alignment_and_switching_leave_nothing_stored():
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, "dfa")

    def round_trip() -> None:
        measure_alignment(net, lambda net: cross_entropy(net(x), y))
        for method in METHODS:
            attachment.method = method
        with attachment.backprop():
            net(x)
        attachment.method = "dfa"

    round_trip()  # draws the matrices of the layers
    before = live_tensors()
    for _ in range(5):
        round_trip()
    assert live_tensors() == before


def test_attaching_and_detaching_many_times_leaves_nothing():
    net = Mlp()
    for _ in range(3):
        attach(net, "fa").detach()
        attach(net, "dfa", points=["hidden.*"]).detach()
    before = len(gc.get_objects())
    for _ in range(50):
        attach(net, "fa").detach()
        attach(net, "dfa", points=["hidden.*"]).detach()
    gc.collect()
    assert len(gc.get_objects()) < before + 100
