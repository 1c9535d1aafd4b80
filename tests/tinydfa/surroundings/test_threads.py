"""A forward pass belongs to its thread, and a pass within a pass is one of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from tests.tinydfa.nets import Mlp, assert_gradients, batch, error_of, gradients_of, mlp_rule, one_hot
from tinydfa import attach
from tinydfa.errors import PointError


def caught(work: Callable[[], object]) -> list[BaseException]:
    """What `work` raised."""
    try:
        work()
    except BaseException as error:
        return [error]
    return []


def in_thread(work: Callable[[], object]) -> list[BaseException]:
    """Runs `work` in a thread of its own, to its end; what it raised."""
    raised: list[BaseException] = []
    thread = threading.Thread(target=lambda: raised.extend(caught(work)))
    thread.start()
    thread.join()
    return raised


def in_this_thread(work: Callable[[], object]) -> list[BaseException]:
    work()
    return []


def amid(net: Mlp, work: Callable[[], object]) -> None:
    """Once, in the middle of the next forward pass of `net`, `work` is done."""

    def do(*_: object) -> None:
        handle.remove()
        assert work() == []

    handle = net.hidden[2].register_forward_pre_hook(do)


@pytest.mark.parametrize("run", [in_thread, in_this_thread])
@pytest.mark.parametrize("gradients", [True, False])
def test_a_pass_amid_a_pass_changes_nothing(run, gradients):
    net, (x, y), (other, _) = Mlp(), batch(), batch(3, seed=5)
    attachment = attach(net, "dfa")

    def evaluate() -> None:
        with torch.set_grad_enabled(gradients):
            net(other)

    amid(net, lambda: run(evaluate))
    cross_entropy(net(x), y).backward()
    assert_gradients(net, mlp_rule(net, x, y, attachment.head.feedback_matrix, lambda e: e))


@pytest.mark.parametrize("run", [in_thread, in_this_thread])
def test_a_pass_amid_a_pass_trains_as_well(run):
    net, (x, y), (x2, y2) = Mlp(), batch(), batch(3, seed=5)
    attachment = attach(net, "dfa")
    amid(net, lambda: run(lambda: cross_entropy(net(x2), y2).backward()))
    cross_entropy(net(x), y).backward()
    matrix = attachment.head.feedback_matrix
    one, two = mlp_rule(net, x, y, matrix, lambda e: e), mlp_rule(net, x2, y2, matrix, lambda e: e)
    assert_gradients(net, {name: one[name] + two[name] for name in one})


@pytest.mark.parametrize("run", [in_thread, in_this_thread])
def test_a_pass_amid_a_pass_does_not_take_its_target(run):
    net, (x, y), (other, _) = Mlp(), batch(), batch(3, seed=5)
    attachment = attach(net, "drtp")
    attachment.target = y

    def evaluate() -> None:
        with torch.no_grad():
            net(other)

    amid(net, lambda: run(evaluate))
    cross_entropy(net(x), y).backward()
    assert_gradients(net, mlp_rule(net, x, y, attachment.head.feedback_matrix, lambda e: one_hot(y)))


def test_a_target_is_that_of_the_thread_that_set_it():
    net, (x, y), (x2, y2) = Mlp(), batch(), batch(3, seed=5)
    attachment = attach(net, "drtp")
    attachment.target = y

    def other() -> None:
        attachment.target = y2
        cross_entropy(net(x2), y2).backward()

    assert in_thread(other) == []
    cross_entropy(net(x), y).backward()
    matrix = attachment.head.feedback_matrix
    one, two = mlp_rule(net, x, y, matrix, lambda e: one_hot(y)), mlp_rule(net, x2, y2, matrix, lambda e: one_hot(y2))
    assert_gradients(net, {name: one[name] + two[name] for name in one})


def test_passes_that_overlap_train_apart():
    """Another thread's pass begins amid this thread's and ends after it."""
    net, (x, y), (x2, y2) = Mlp(), batch(), batch(3, seed=5)
    attachment = attach(net, "dfa")
    halfway, finished = threading.Event(), threading.Event()

    def wait(*_: object) -> None:
        halfway.set()
        finished.wait(timeout=60)

    def begin() -> list[BaseException]:
        handle = net.hidden[2].register_forward_pre_hook(wait)
        other.start()
        halfway.wait(timeout=60)
        handle.remove()
        return []

    raised: list[BaseException] = []
    other = threading.Thread(target=lambda: raised.extend(caught(lambda: cross_entropy(net(x2), y2).backward())))
    amid(net, begin)
    loss = cross_entropy(net(x), y)
    finished.set()
    other.join()
    loss.backward()
    assert raised == []
    matrix = attachment.head.feedback_matrix
    one, two = mlp_rule(net, x, y, matrix, lambda e: e), mlp_rule(net, x2, y2, matrix, lambda e: e)
    assert_gradients(net, {name: one[name] + two[name] for name in one})


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("method", ["dfa", "drtp"])
def test_the_backward_pass_may_run_and_recompute_in_another_thread(method, when):
    """As it does on a GPU, whose backward passes run in a thread of the engine."""
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, method)
    if when == "before":
        attachment.target = y
    loss = cross_entropy(checkpoint(net, x, use_reentrant=False), y)
    attachment.target = y
    assert in_thread(loss.backward) == []
    signal = {"dfa": lambda e: e, "drtp": lambda e: one_hot(y)}[method]
    assert_gradients(net, mlp_rule(net, x, y, attachment.head.feedback_matrix, signal))


class Branches(nn.Module):
    """Runs its first part in a thread of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.below, self.top = nn.Sequential(nn.Linear(6, 5), nn.Tanh()), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: list[Tensor] = []
        for error in in_thread(lambda: found.append(self.below(x))):
            raise error
        return self.top(found[0])


def test_a_point_in_a_thread_within_the_pass_is_refused():
    model = Branches()
    attach(model, "dfa", points=["below"])
    with pytest.raises(PointError, match="in the thread where it runs"):
        model(batch()[0])


class Padded(nn.Module):
    """A classifier over padded text, with torch's own Transformer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.encoder, self.top = nn.TransformerEncoder(layer, 2), nn.Linear(8, 3)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        return self.top(self.encoder(x, src_key_padding_mask=padding)[:, 0])


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("method", ["bp", "dfa", "sdfa", "shallow"])
def test_evaluation_by_nested_tensors_is_as_without_attachment(method):
    model, (x, y) = Padded().eval(), batch(4, 5, 8)
    padding = torch.arange(5) >= torch.tensor([5, 3, 4, 2])[:, None]
    with torch.no_grad():
        expected = model(x, padding)
    attach(model, method, points=["encoder.layers.*"])
    with torch.no_grad():
        torch.testing.assert_close(model(x, padding), expected)
    model.train()
    cross_entropy(model(x, padding), y).backward()
    error = error_of(model(x, padding).detach(), y)
    torch.testing.assert_close(gradients_of(model)["top.bias"], error.sum(0))


def test_a_nested_tensor_at_a_point_that_trains_is_refused_with_the_way_out():
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3))
    attach(model, "dfa", points=["0"])
    nested = torch.nested.nested_tensor([torch.ones(2, 6), torch.ones(3, 6)], layout=torch.jagged)
    with pytest.raises(PointError, match=r"nested tensor.*attachment\.samples"):
        model(nested)
