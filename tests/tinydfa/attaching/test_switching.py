"""Switching methods on a model, and leaving it: BP inside `backprop()` exactly, everything back after `detach()`."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from tests.tinydfa.nets import ConvNet, Mlp, batch, gradients_of
from tinydfa import DFA, DFALayer, Feedback, Method, attach, attachment_of

METHODS = [str(method) for method in Method]
PATTERNS = {"own points": None, "hooks": ["hidden.*"]}


def step(net: nn.Module, attachment, x, y) -> dict[str, torch.Tensor]:
    net.zero_grad()
    if attachment is not None:
        attachment.target = y
    cross_entropy(net(x), y).backward()
    return gradients_of(net)


def assert_identical(found: dict[str, torch.Tensor], truth: dict[str, torch.Tensor]) -> None:
    assert found.keys() == truth.keys()
    assert all(torch.equal(found[name], truth[name]) for name in truth)


def test_there_are_ten_methods():
    assert METHODS == ["bp", "shallow", "dfa", "sdfa", "tdfa", "drtp", "fa", "usf", "brsf", "frsf"]


@pytest.mark.parametrize("points", PATTERNS)
@pytest.mark.parametrize("method", METHODS)
def test_backprop_block_gives_exactly_backpropagation(method, points):
    net, (x, y) = Mlp(), batch()
    truth = step(net, None, x, y)
    attachment = attach(net, method, points=PATTERNS[points])
    ours = step(net, attachment, x, y)
    with attachment.backprop():
        assert_identical(step(net, attachment, x, y), truth)
        with attachment.backprop():
            assert_identical(step(net, attachment, x, y), truth)
        assert_identical(step(net, attachment, x, y), truth)
    again = step(net, attachment, x, y)
    assert attachment.method == method
    if method != "brsf":  # draws anew every pass
        assert_identical(again, ours)
    if method != "bp":
        assert again.keys() != truth.keys() or any(not torch.equal(again[n], truth[n]) for n in truth)


@pytest.mark.parametrize("method", METHODS)
def test_backprop_block_on_convolutions(method):
    net, (x, y) = ConvNet(), batch(4, 2, 8, 8)
    truth = step(net, None, x, y)
    attachment = attach(net, method)
    with attachment.backprop():
        assert_identical(step(net, attachment, x, y), truth)


def test_backprop_block_ends_with_the_method_back_also_after_an_exception():
    net, (x, y) = Mlp(), batch()
    for method in ("dfa", "fa"):
        attachment = attach(net, method)
        ours = step(net, attachment, x, y)
        with pytest.raises(KeyError), attachment.backprop():
            raise KeyError
        assert_identical(step(net, attachment, x, y), ours)
        attachment.detach()


def snapshot(net: nn.Module) -> dict[str, object]:
    """All of a model that `attach` could have touched."""
    seen: dict[str, object] = {"state": list(net.state_dict()), "buffers": [name for name, _ in net.named_buffers()]}
    for name, module in net.named_modules():
        kept = {key: value for key, value in vars(module).items() if not isinstance(value, dict | nn.Module)}
        seen[name] = (type(module), kept.keys(), module.training, list(module._buffers), list(module._modules))
        seen[f"{name} hooks"] = [len(value) for key, value in sorted(vars(module).items()) if key.endswith("hooks")]
        if isinstance(module, DFALayer):
            seen[f"{name} point"] = (module.name, module.link, module.batch_dims, module.passthrough)
    return seen


@pytest.mark.parametrize("points", PATTERNS)
@pytest.mark.parametrize("method", METHODS)
def test_detach_leaves_the_model_as_it_was(method, points):
    net, (x, y) = Mlp(), batch()
    truth, before = step(net, None, x, y), snapshot(net)
    attachment = attach(net, method, points=PATTERNS[points], batch_dims=(0,))
    keys = list(net.state_dict())
    step(net, attachment, x, y)
    assert list(net.state_dict()) == keys == before["state"]
    attachment.detach()
    assert snapshot(net) == before
    assert attachment_of(net) is None
    assert_identical(step(net, None, x, y), truth)
    attachment.detach()  # again: nothing happens


class OwnHead(nn.Module):
    """A model of the 2020 kind: points and head written into it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Mlp()
        self.dfa = DFA(list(self.net.points))

    def forward(self, x):
        return self.dfa(self.net(x))


@pytest.mark.parametrize("ran", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_detach_leaves_a_models_own_head_as_it_was(method, ran):
    model, (x, y) = OwnHead(), batch()
    before_step = step(model, None, x, y) if ran else None
    matrix = model.dfa.feedback_matrix
    before, settings = snapshot(model), (model.dfa.feedback, model.dfa.link.rule)
    attachment = attach(model, method, feedback=Feedback(seed=5))
    step(model, attachment, x, y)
    attachment.detach()
    assert snapshot(model) == before
    assert settings == (model.dfa.feedback, model.dfa.link.rule)
    assert matrix is model.dfa.feedback_matrix or torch.equal(matrix, model.dfa.feedback_matrix)
    if ran:
        assert_identical(step(model, None, x, y), before_step)


@pytest.mark.parametrize("first", METHODS)
def test_switching_away_and_back_changes_nothing(first):
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, first)
    ours = step(net, attachment, x, y)
    for other in METHODS:
        attachment.method = other
        fresh = Mlp()
        expected = step(fresh, attach(fresh, other), x, y)
        found = step(net, attachment, x, y)
        if other != "brsf":
            assert_identical(found, expected)
    attachment.method = Method(first)
    if first != "brsf":
        assert_identical(step(net, attachment, x, y), ours)


def test_attach_with_bp_needs_no_points_and_switches_to_layerwise_methods():
    net, (x, y) = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)), batch()
    truth = step(net, None, x, y)
    attachment = attach(net, "bp")
    assert_identical(step(net, attachment, x, y), truth)
    attachment.method = "fa"
    assert not torch.equal(step(net, attachment, x, y)["0.weight"], truth["0.weight"])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("points", PATTERNS)
def test_a_deep_copy_trains_alone_and_the_original_goes_on(method, points):
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, method, points=PATTERNS[points])
    ours = step(net, attachment, x, y)
    copied = copy.deepcopy(net)
    theirs = attachment_of(copied)
    assert theirs is not attachment
    assert theirs.model is copied
    net.zero_grad()
    if method != "brsf":
        assert_identical(step(copied, theirs, x, y), ours)
    assert gradients_of(net) == {}
    theirs.method = "bp"
    truth = step(copied, theirs, x, y)
    theirs.detach()
    assert attachment_of(copied) is None
    assert_identical(step(copied, None, x, y), truth)
    if method != "brsf":
        assert_identical(step(net, attachment, x, y), ours)
    attachment.detach()
    assert_identical(step(net, None, x, y), truth)
