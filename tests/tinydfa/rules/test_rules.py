"""A rule is an object: the user's own by every way of naming it, what a rule says of itself, and rules that learn."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from tests.processes import in_two_processes
from tests.tinydfa.nets import Mlp, assert_gradients, batch, error_of, mlp_rule
from tinydfa import Broadcast, DFAError, Feedback, Method, attach, attachment_of, doctor, find_rule, measure_alignment
from tinydfa.errors import OptionError
from tinydfa.rules import DFA, DKP, EBD, Learning, Local, registered

SOURCE = """
import tinydfa

class Clipped(tinydfa.Broadcast):
    def encode(self, error, target):
        return error.clamp(-0.05, 0.05)

class Wants(tinydfa.Broadcast):
    def __init__(self, size):
        self.size = size
"""


class Clipped(Broadcast):
    """DFA with a clipped error."""

    def encode(self, error: Tensor, target: Tensor | None) -> Tensor:
        return error.clamp(-0.05, 0.05)


def clipped(e: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(e, torch.tensor(-0.05)), torch.tensor(0.05))


@pytest.mark.parametrize("spelled", ["object", "class", "file"])
def test_a_users_rule_trains_by_what_it_encodes(spelled, tmp_path):
    (tmp_path / "mine.py").write_text(SOURCE)
    rule = {"object": Clipped(), "class": Clipped, "file": f"{tmp_path}/mine.py:Clipped"}[spelled]
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, rule)
    cross_entropy(net(x), y).backward()
    assert attachment.method == "Clipped"
    assert_gradients(net, mlp_rule(net, x, y, attachment.head.feedback_matrix, clipped))


def test_a_rule_is_switched_to_and_back():
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, "dfa")
    attachment.method = Clipped
    cross_entropy(net(x), y).backward()
    assert_gradients(net, mlp_rule(net, x, y, attachment.head.feedback_matrix, clipped))
    attachment.method = "dfa"
    assert attachment.method is Method.DFA
    assert isinstance(attachment.rule, DFA)


def test_a_name_that_does_not_exist_is_answered_with_those_that_do(tmp_path):
    (tmp_path / "mine.py").write_text(SOURCE)
    (tmp_path / "broken.py").write_text("import nothing_of_that_name")
    for name, parts in (
        ("dfaa", "unknown method 'dfaa'.*bp, shallow, dfa.*dkp.*file.py:Class"),
        (f"{tmp_path}/mine.py:Clip", "no rule called 'Clip'.*Clipped"),
        (f"{tmp_path}/mine.py:Wants", "Wants cannot be made without arguments.*defaults"),
        (f"{tmp_path}/none.py:Clipped", "no file"),
        (f"{tmp_path}/broken.py:Clipped", "cannot be run.*nothing_of_that_name"),
    ):
        with pytest.raises(DFAError, match=parts):
            attach(Mlp(), name)
    with pytest.raises(DFAError, match="is no rule"):
        find_rule(nn.Linear)  # type: ignore[arg-type]


def test_a_name_may_have_options_after_it(tmp_path):
    assert find_rule("fitted(exact_every=50, memory=0.5)").options | {"rows": 0} == {
        "exact_every": 50,
        "memory": 0.5,
        "ridge": 1e-3,
        "rows": 0,
        "adapt": None,
        "exact_between": (10, 1000),
        "steady": False,
    }
    assert str(find_rule("calibrated(rule='sdfa', exact_every=7)").rule) == "sdfa"
    (tmp_path / "mine.py").write_text(
        "import tinydfa\nclass Own(tinydfa.Broadcast):\n    def __init__(self, size=1):\n        self.size = size\n"
    )
    assert find_rule(f"{tmp_path}/mine.py:Own(size=3)").size == 3
    for name, parts in (
        ("fitted(every_exact=50)", "Fitted has no such options.*exact_every, memory"),
        ("fitted(50)", "options are written as in fitted"),
        ("fitted(exact_every=open('x'))", "options are written as in fitted"),
        ("fitted(exact_every=0)", "at least 1"),
        ("fited(exact_every=1)", "unknown method 'fited'"),
    ):
        with pytest.raises(DFAError, match=parts):
            find_rule(name)


def test_every_rule_of_the_library_says_what_tables_and_plots_need():
    rules = registered()
    assert {str(method) for method in Method} <= set(rules)
    labels = [kind.label for kind in rules.values()]
    assert len(set(labels)) == len(labels)
    assert all(kind.source for name, kind in rules.items() if name != "bp")
    assert all(kind.__doc__ for kind in rules.values())


def test_a_rule_that_is_not_linear_sees_the_error_without_its_loss_scale():
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, Clipped())
    attachment.loss_scale = 2.0**12
    (cross_entropy(net(x), y) * 2.0**12).backward()
    rule = mlp_rule(net, x, y, attachment.head.feedback_matrix, clipped)
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(parameter.grad / 2.0**12, rule[name])


def hidden(net: Mlp, x: Tensor) -> list[Tensor]:
    values = []
    for layer in net.hidden:
        x = torch.tanh(layer(x))
        values.append(x)
    return values


@torch.no_grad()
def after(net: Mlp, x: Tensor, y: Tensor, before: list[Tensor], lr: float, decay: float) -> list[Tensor]:
    """Feedback of the points after one step of direct Kolen-Pollack, by hand."""
    error = error_of(net(x), y)
    return [F - lr * (error.T @ h + decay * F) for F, h in zip(before, hidden(net, x), strict=True)]


def blocks(attachment) -> list[Tensor]:
    return list(attachment.effective_feedback().split([5, 4, 7], dim=1))


def test_feedback_that_learns_moves_at_the_end_of_the_backward_pass():
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, DKP(lr=0.5, decay=0.1), seed=3)
    net(x)  # draws
    before = blocks(attachment)
    drawn = Feedback(seed=3).draw(3, 16) / 7**0.5
    torch.testing.assert_close(torch.cat(before, dim=1), drawn)
    cross_entropy(net(x), y).backward()
    h = hidden(net, x)
    error = error_of(net(x), y).detach()
    torch.testing.assert_close(net.hidden[2].bias.grad, (error @ before[2] * (1 - h[2] ** 2)).sum(0).detach())
    for found, expected in zip(blocks(attachment), after(net, x, y, before, 0.5, 0.1), strict=True):
        torch.testing.assert_close(found, expected)


def test_error_broadcast_and_decorrelation_is_the_running_mean_of_errors_times_values():
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, EBD(memory=0.7))
    net(x)
    before = blocks(attachment)
    cross_entropy(net(x), y).backward()
    error = (net(x).softmax(1) - torch.eye(3)[y]).detach()  # of each sample, not divided by their number
    for found, F, h in zip(blocks(attachment), before, hidden(net, x), strict=True):
        mean = torch.stack([torch.outer(e, value) for e, value in zip(error, h.detach(), strict=True)]).mean(0)
        torch.testing.assert_close(found, 0.7 * F + 0.3 * mean)


@pytest.mark.parametrize(
    "make",
    [lambda: DKP(lr=0), lambda: DKP(every=0), lambda: DKP(decay=-1.0), lambda: EBD(memory=1), lambda: EBD(every=0)],
)
def test_an_option_of_a_rule_that_learns_is_refused_where_it_makes_no_sense(make):
    with pytest.raises(OptionError, match="got"):
        make()


def test_parts_of_a_batch_move_the_feedback_as_the_whole_does():
    whole, parts, (x, y) = Mlp(), Mlp(), batch()
    one, two = attach(whole, DKP(lr=0.5)), attach(parts, DKP(lr=0.5, every=2))
    cross_entropy(whole(x), y).backward()
    for part in (slice(0, 4), slice(4, 8)):
        (cross_entropy(parts(x[part]), y[part]) / 2).backward()
    torch.testing.assert_close(one.effective_feedback(), two.effective_feedback())
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_looking_at_a_model_does_not_move_its_feedback():
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, "dkp")
    cross_entropy(net(x), y).backward()
    before = attachment.effective_feedback()
    measure_alignment(net, lambda net: cross_entropy(net(x), y))
    doctor(net, (x, y), lambda net, b: cross_entropy(net(b[0]), b[1]), compile=False, autocast=False)
    with attachment.backprop():
        cross_entropy(net(x), y).backward()
    assert torch.equal(attachment.effective_feedback(), before)


def test_a_saved_state_goes_on_as_if_nothing_had_happened():
    def train(net: Mlp, attachment, steps: int) -> list[float]:
        losses = []
        for _ in range(steps):
            net.zero_grad()
            loss = cross_entropy(net(x), y)
            loss.backward()
            with torch.no_grad():
                for parameter in net.parameters():
                    parameter.sub_(0.5 * parameter.grad)
            losses.append(loss.item())
        return losses

    net, (x, y) = Mlp(), batch()
    attachment = attach(net, DKP(lr=0.3, every=2))
    train(net, attachment, 3)
    model, state = copy.deepcopy(net.state_dict()), attachment.state_dict()
    expected = train(net, attachment, 4)
    fresh = Mlp()
    other = attach(fresh, DKP(lr=0.3, every=2), seed=9)
    fresh.load_state_dict(model)
    other.load_state_dict(state)
    assert train(fresh, other, 4) == expected
    with pytest.raises(DFAError, match="learned by dkp"):
        attach(Mlp(), Averaging()).head.load_learner(Averaging(), state["learner"])


class Averaging(DKP):
    """A rule of another name."""


def test_a_deep_copy_learns_for_itself():
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, "dkp")
    cross_entropy(net(x), y).backward()
    before, copied = attachment.effective_feedback(), copy.deepcopy(net)
    cross_entropy(copied(x), y).backward()
    assert torch.equal(attachment.effective_feedback(), before)
    assert not torch.equal(attachment_of(copied).effective_feedback(), before)


def test_feedback_that_learns_is_float32_under_bfloat16():
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, "dkp")
    with torch.autocast("cpu", torch.bfloat16):
        output = net(x)
    cross_entropy(output.float(), y).backward()
    assert attachment.effective_feedback().dtype is torch.float32
    net.bfloat16()
    cross_entropy(net(x.bfloat16()).float(), y).backward()
    assert attachment.effective_feedback().dtype is torch.float32


def test_what_is_learned_under_autocast_is_learned_in_full_precision():
    moved = []
    for inside in (False, True):
        net, (x, y) = Mlp(), batch()
        attachment = attach(net, DKP(lr=0.5))
        loss = cross_entropy(net(x), y)
        with torch.autocast("cpu", torch.bfloat16, enabled=inside):
            loss.backward()
        moved.append(blocks(attachment)[2])  # right below the output, whose error is the same
    torch.testing.assert_close(*moved)


def test_checkpointing_moves_the_feedback_once():
    plain, saved, (x, y) = Mlp(), Mlp(), batch()
    one, two = attach(plain, DKP(lr=0.5)), attach(saved, DKP(lr=0.5))
    cross_entropy(plain(x), y).backward()
    cross_entropy(checkpoint(saved, x, use_reentrant=False), y).backward()
    torch.testing.assert_close(one.effective_feedback(), two.effective_feedback())


def test_a_compiled_model_moves_the_feedback_too():
    torch.compiler.reset()
    plain, compiled, (x, y) = Mlp(), Mlp(), batch()
    one, two = attach(plain, DKP(lr=0.5)), attach(compiled, DKP(lr=0.5))
    plain(x), compiled(x)
    runner = torch.compile(compiled, fullgraph=True)
    for _ in range(2):
        cross_entropy(plain(x), y).backward()
        cross_entropy(runner(x), y).backward()
    torch.testing.assert_close(one.effective_feedback(), two.effective_feedback())
    for a, b in zip(plain.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_a_backward_pass_that_raises_leaves_the_feedback_and_the_next_pass_alone():
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, DKP(lr=0.5))
    net(x)
    before = blocks(attachment)
    handle = net.hidden[0].weight.register_hook(stop)
    loss = cross_entropy(net(x), y)
    with pytest.raises(RuntimeError, match="stop"):
        loss.backward()
    handle.remove()
    assert all(torch.equal(a, b) for a, b in zip(blocks(attachment), before, strict=True))
    cross_entropy(net(x), y).backward()
    for found, expected in zip(blocks(attachment), after(net, x, y, before, 0.5, 1e-4), strict=True):
        torch.testing.assert_close(found, expected)


def stop(gradient: Tensor) -> None:
    raise RuntimeError("stop")


def learn_worker(rank: int, folder: Path) -> None:
    """Half of the batch in each of two processes."""
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, DKP(lr=0.5))
    model = nn.parallel.DistributedDataParallel(net)
    part = slice(4 * rank, 4 * rank + 4)
    for _ in range(2):
        net.zero_grad()
        cross_entropy(model(x[part]), y[part]).backward()
    torch.save((attachment.effective_feedback(), [p.grad for p in net.parameters()]), folder / f"{rank}.pt")


def test_processes_learn_one_feedback_that_of_the_whole_batch(tmp_path):
    in_two_processes(learn_worker, tmp_path)
    (first, gradients), (second, _) = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert torch.equal(first, second)
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, DKP(lr=0.5))
    for _ in range(2):
        net.zero_grad()
        cross_entropy(net(x), y).backward()
    torch.testing.assert_close(first, attachment.effective_feedback())
    for found, parameter in zip(gradients, net.parameters(), strict=True):
        torch.testing.assert_close(found, parameter.grad)


@pytest.mark.parametrize(
    ("options", "methods", "message"),
    [
        ({}, {"update": None}, r"Half is shown training passes, and its class has no moments\(seen\)"),
        ({"exact_every": 2}, {"update": None}, r"has no moments\(seen\)"),
        ({"every": 0, "probe_every": 1}, {"update": None}, r"Half probes the model .* has no probe_moments\(probed\)"),
        ({}, {"moments": lambda self, seen: {"n": seen.error.sum()}}, r"Half learns, .* no update\(feedback, moments"),
    ],
)
def test_what_a_rule_that_learns_does_not_define_is_named(options, methods, message):
    half = type("Half", (Learning,), options | methods)
    net = Mlp()
    attach(net, half())
    x, y = batch()
    with pytest.raises(NotImplementedError, match=message):
        cross_entropy(net(x), y).backward()


def test_what_a_local_rule_does_not_define_is_named():
    half = type("Half", (Local,), {})
    net = Mlp()
    attachment = attach(net, half())
    x, y = batch()
    attachment.target = y
    with pytest.raises(NotImplementedError, match=r"Half makes its signals .* no at_point\(here\): see .*rules\.Local"):
        cross_entropy(net(x), y).backward()
