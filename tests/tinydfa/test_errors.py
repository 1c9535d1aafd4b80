"""Every mistake is a `DFAError` that names the culprit, the cause and the way out."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.tinydfa.nets import Mlp, batch
from tests.tinydfa.surroundings.foreign import Transformer
from tinydfa import DFA, DFAError, DFALayer, Feedback, Method, Scaling, attach
from tinydfa.rules import LES, TernaryDFA


def says(*parts: str):
    """A `DFAError` whose message holds all of `parts`, in this order."""
    return pytest.raises(DFAError, match="(?s)" + ".*".join(parts))


def run(net: nn.Module, x: Tensor, y: Tensor) -> None:
    cross_entropy(net(x), y).backward()


def test_an_unknown_method_lists_the_names():
    with says("unknown method 'dfaa'", "bp, shallow, dfa, sdfa, tdfa, drtp, fa, usf, brsf, frsf"):
        attach(Mlp(), "dfaa")
    attachment = attach(Mlp(), "dfa")
    with says("unknown method 'DFA2'", "brsf"):
        attachment.method = "DFA2"
    assert attachment.method is Method.DFA
    with says("unknown distribution 'normal'", "uniform, gaussian, sign, sparse"):
        Feedback(distribution="normal")
    with says("unknown scaling 'big'", "largest, point, none"):
        Feedback(scaling="big")
    with says("unknown distribution 'normal'"):
        attach(Mlp(), "dfa", feedback="normal")
    assert Scaling.parse("none") is Scaling.NONE


def test_a_pattern_that_matches_nothing_names_what_is_near():
    with says("'hiden.*' matches no submodule of Mlp", "'hidden"):
        attach(Mlp(), "dfa", points=["hiden.*"])


def test_nothing_is_left_on_a_model_that_could_not_be_attached():
    net = Mlp()
    for wrong in ({"points": ["nothing"]}, {"output": "nothing"}, {"batch_dims": {"nothing": (0,)}}, {"method": "no"}):
        with pytest.raises(DFAError):
            attach(net, **wrong)
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
        assert all(point.link is None for point in net.points)
    with says("no_layers|has none|layers"):
        attach(nn.Sequential(nn.Tanh()), "fa")


def test_a_model_without_points_says_how_to_name_them():
    with says("dfa needs feedback points", "Sequential has no DFALayer", "points="):
        attach(nn.Sequential(nn.Linear(2, 2)), "dfa")
    attachment = attach(nn.Sequential(nn.Linear(2, 2)), "bp")
    with says("dfa needs feedback points"):
        attachment.method = "dfa"


def test_an_output_that_does_not_exist_or_names_dimensions_of_no_point():
    with says("output 'top2' is no submodule of Mlp", "'top'"):
        attach(Mlp(), "dfa", output="top2")
    with says("batch_dims names 'hidden.9'", "no feedback point"):
        attach(Mlp(), "dfa", points=["hidden.*"], batch_dims={"hidden.9": (0,)})


def test_points_above_the_output_are_named():
    net, (x, y) = Mlp(), batch()
    attach(net, "dfa", output="hidden.1", points=["hidden.0", "hidden.2"])
    with says("no head feeds 'hidden.2'", "Name a later output|remove"):
        run(net, x, y)


def test_a_point_in_the_model_that_its_head_does_not_feed_is_named():
    net = Mlp()
    model = nn.Sequential(net, DFA(list(net.points)[:2]))
    with says("0.points.2", "not in the list of the model's head", "DFA\\("):
        attach(model, "dfa")


def test_an_unfed_point_of_a_bare_head_does_not_cut_the_graph():
    """Without attach nobody sees all points; then one outside the list is the identity, not a silent cut."""
    net, (x, y) = Mlp(), batch()
    head = DFA(list(net.points)[:2])
    cross_entropy(head(net(x)), y).backward()
    assert net.hidden[2].weight.grad is not None
    assert float(net.hidden[2].weight.grad.abs().sum()) > 0


def test_a_forward_pass_that_reaches_no_point_is_refused():
    net, (x, y) = Mlp(), batch()
    unused = DFALayer("unused")
    head = DFA([unused])
    with says("without passing any of its feedback points", "'unused'"):
        cross_entropy(head(net(x)), y)


def test_a_part_of_the_model_called_on_its_own_is_refused():
    net, (x, y) = Mlp(), batch()
    attach(nn.Sequential(net, nn.Tanh()), "dfa")
    with says("'0.points.0' ran outside a call of the attached model", r"Call model\(...\) itself"):
        cross_entropy(net(x), y)
    with torch.no_grad():
        assert net(x).shape == (8, 3)  # nothing is trained: nothing to refuse


@pytest.mark.parametrize("points", [[], nn.ModuleList()])
def test_a_head_without_points_is_refused(points):
    with says("a head without feedback points", "at least one DFALayer"):
        DFA(points)


def test_attaching_twice_is_refused_and_so_is_a_parent():
    net = Mlp()
    attach(net, "dfa")
    with says("Mlp'? is attached already", "attachment.method = 'fa'", r"detach\(\)"):
        attach(net, "fa")
    with says("attached already"):
        attach(nn.Sequential(net), "dfa")


def test_a_model_that_returns_its_loss_is_told_to_name_the_output():
    net = Transformer("loss")
    attach(net, "dfa", points=["layers.*"])
    ids = torch.randint(0, 11, (2, 5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with says("the model's return value is a single number", "output="):
            net(ids, ids)


def test_no_target_for_drtp():
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, "drtp")
    with says("drtp reads the targets", "attachment.target = y"):
        run(net, x, y)
    attachment.target = y
    run(net, x, y)
    with says("drtp reads the targets"):  # taken by the first pass, not used twice
        run(net, x, y)


@pytest.mark.parametrize(
    ("target", "part"),
    [
        (torch.zeros(7, dtype=torch.int64), r"shape \(7,\)"),
        (torch.zeros(8), r"shape \(8,\)"),
        (torch.zeros(8, 4), r"shape \(8, 4\)"),
        (torch.full((8,), 3), "3"),
    ],
)
def test_a_target_that_does_not_fit(target, part):
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, "drtp")
    attachment.target = target
    with says(part, "8 samples|3 classes"):
        run(net, x, y)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("method", ["dfa", "sdfa", "tdfa", "drtp"])
def test_an_error_that_is_not_finite_is_refused_before_it_reaches_a_layer(method, value):
    net, (x, y) = Mlp(), batch()
    attach(net, method).target = y
    factor = torch.ones(8, 3)
    factor[2, 1] = factor[5, 0] = value
    with says("not finite in 2 of 8 samples", "Lower the learning rate"):
        (net(x) * factor).sum().backward()
    assert all(layer.weight.grad is None for layer in net.hidden)


def test_checking_can_be_switched_off():
    net, (x, _) = Mlp(), batch()
    attach(net, "dfa", feedback=Feedback(check_finite=False))
    (net(x) * float("inf")).sum().backward()
    assert not net.hidden[0].weight.grad.isfinite().all()


@pytest.mark.parametrize("method", ["sdfa", "tdfa", "drtp", "les"])
def test_a_loss_scale_that_would_be_lost_is_refused_until_it_is_told(method):
    net, (x, y) = Mlp(), batch()
    rules = {"tdfa": TernaryDFA(threshold=0.03), "les": LES(lr=1e-9)}  # it learns between the two
    attachment = attach(net, rules.get(method, method))
    attachment.target = y
    run(net, x, y)
    plain = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    attachment.target = y
    with says("loss scale", "attachment.loss_scale = scaler.get_scale"):
        (cross_entropy(net(x), y) * 2.0**16).backward()
    net.zero_grad()
    attachment.loss_scale, attachment.target = 2.0**16, y
    (cross_entropy(net(x), y) * 2.0**16).backward()
    for parameter, gradient in zip(net.parameters(), plain, strict=True):
        torch.testing.assert_close(parameter.grad / 2.0**16, gradient)


@pytest.mark.parametrize("method", ["sdfa", "tdfa", "drtp", "les"])
def test_float16_autocast_asks_for_the_loss_scale(method):
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, method)
    attachment.target = y
    with torch.autocast("cpu", torch.float16):
        with says("float16 needs a loss scale", "bfloat16", r"attachment\.loss_scale"):
            net(x)
        attachment.loss_scale, attachment.target = 1024.0, y
        output = net(x)
    (cross_entropy(output.float(), y) * 1024).backward()
    assert 0 < float(net.hidden[0].weight.grad.abs().sum()) / 1024 < 100
