"""`doctor` finds what it promises to find, and nothing in a healthy model."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.processes import in_two_processes
from tests.tinydfa.nets import batch
from tinydfa import DFAError, DFALayer, Fault, Method, Status, attach, attachment_of, doctor
from tinydfa.examining.diagnosis import ADVICE, BELOW_NORM
from tinydfa.rules import FDFA, LAS, Calibrated, Fitted


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


def loss(model: nn.Module, data: tuple[Tensor, Tensor]) -> Tensor:
    attachment = attachment_of(model)
    if attachment is not None and attachment.method is Method.DRTP:
        attachment.target = data[1]
    return F.cross_entropy(model(data[0]), data[1])


def where(diagnosis, fault: Fault) -> set[str]:
    return {name for finding in diagnosis.findings if finding.fault is fault for name in finding.where}


@pytest.mark.parametrize("method", [m for m in Method if m not in ("bp", "shallow")])
def test_a_healthy_model_has_no_findings(method):
    net = mlp()
    attach(net, method, points=["1", "3"])
    diagnosis = doctor(net, batch(), loss, autocast=False)
    assert diagnosis.findings == []
    assert diagnosis.parameters["4.weight"] is Status.BP
    assert {diagnosis.parameters[name] for name in ("0.weight", "0.bias", "2.weight")} == {Status.METHOD}
    assert diagnosis.agreement["compiled"] > 0.9999


def test_a_layer_cut_off_from_every_gradient_is_named():
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.low, self.middle, self.top, self.point = nn.Linear(6, 5), nn.Linear(5, 4), nn.Linear(4, 3), DFALayer()

        def forward(self, x):
            return self.top(self.point(torch.tanh(self.middle(self.low(x).detach()))))

    net = Cut()
    attach(net, "dfa")
    diagnosis = doctor(net, batch(), loss, compile=False)
    assert where(diagnosis, Fault.CUT_OFF) == {"low.weight", "low.bias"}
    assert diagnosis.parameters["low.weight"] is Status.NONE


def test_layers_without_a_point_above_them_are_still_trained_by_bp():
    net = mlp()
    attach(net, "dfa", points=["1"])
    diagnosis = doctor(net, batch(), loss, compile=False)
    assert where(diagnosis, Fault.TRAINED_BY_BP) == {"2", "4"}
    assert diagnosis.parameters["2.weight"] is Status.BP


def test_a_path_around_the_points_is_trained_by_bp():
    class Skip(nn.Module):
        def __init__(self):
            super().__init__()
            self.low, self.top, self.point = nn.Linear(6, 5), nn.Linear(5, 3), DFALayer()

        def forward(self, x):
            h = self.low(x)
            return self.top(self.point(h) + h)

    net = Skip()
    attach(net, "dfa")
    assert where(doctor(net, batch(), loss, compile=False), Fault.TRAINED_BY_BP) == {"low.weight", "low.bias"}


def test_rounding_of_a_gradient_that_is_zero_is_no_finding():
    """The bias of a layer that batch normalisation follows shifts what is then centred."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
    attach(net, "dfa", points=["2"])
    diagnosis = doctor(net, batch(64), loss)
    assert diagnosis.findings == []
    assert diagnosis.agreement["bfloat16"] > 0.9


def test_a_point_at_the_output_is_said_to_feed_nothing():
    net = mlp()
    attach(net, "dfa", points=["1", "4"])
    diagnosis = doctor(net, batch(), loss, compile=False, autocast=False)
    assert diagnosis.at_output == ("4",)
    assert "4          is the output: feeds nothing" in str(diagnosis)
    assert where(diagnosis, Fault.TRAINED_BY_BP) == {"2", "4"}  # both lie above the only point that feeds a layer


def test_a_dead_layer_has_a_zero_gradient():
    net = mlp()
    net[1] = nn.ReLU()
    with torch.no_grad():
        net[0].bias.fill_(-1000.0)
    attach(net, "dfa", points=["1", "3"])
    assert where(doctor(net, batch(), loss, compile=False), Fault.ZERO_GRADIENT) >= {"0.weight", "0.bias"}


class Compiled(nn.Module):
    """What a compiler leaves that captured the model before the hooks were set: the graph of the plain model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._orig_mod = model
        self.graph = torch.fx.symbolic_trace(copy.deepcopy(model))

    def forward(self, x):
        modules = dict(self._orig_mod.named_parameters())
        return torch.func.functional_call(self.graph, modules, (x,))


def test_hooks_that_compile_skipped_are_found():
    net = mlp()
    compiled = Compiled(net)
    attach(net, "dfa", points=["1", "3"])
    diagnosis = doctor(compiled, batch(), loss)
    assert where(diagnosis, Fault.COMPILE_DIFFERS) == {"0.weight", "0.bias", "2.weight", "2.bias"}


def test_attaching_after_a_compiled_run_is_seen_by_the_compiler():
    net = mlp()
    compiled = torch.compile(net, backend="aot_eager")
    loss(compiled, batch()).backward()
    attach(net, "dfa", points=["1", "3"])
    assert doctor(compiled, batch(), loss).findings == []


def test_a_point_that_the_head_does_not_know_is_named():
    class Forgetful(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp()
            self.forgotten = DFALayer()

        def forward(self, x):
            return self.net(self.forgotten(x))

    net = Forgetful()
    attach(net, "dfa", points=["net.1", "net.3"])
    assert where(doctor(net, batch(), loss, compile=False), Fault.UNFED_POINT) == {"forgotten"}


def diagnose_as_rank(rank: int, folder: Path, seeds: tuple[int, int]) -> None:
    net = mlp()
    attach(net, "dfa", points=["1", "3"], seed=seeds[rank])
    diagnosis = doctor(net, batch(), loss, compile=False, autocast=False)
    (folder / f"rank{rank}.json").write_text(json.dumps([str(finding) for finding in diagnosis.findings]))


@pytest.mark.parametrize("seeds", [(0, 0), (0, 1)])
def test_feedback_that_differs_between_ranks_is_found(seeds, tmp_path):
    in_two_processes(diagnose_as_rank, tmp_path, seeds)
    for rank in range(2):
        findings = json.loads((tmp_path / f"rank{rank}.json").read_text())
        assert any("feedback differs between ranks: rank 1" in text for text in findings) is (seeds == (0, 1))


def test_nothing_of_the_model_changes():
    net = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Dropout(0.5), nn.Linear(5, 3))
    attach(net, "dfa", points=["3"])
    before, generator = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    doctor(net, batch(), loss, compile=False)
    assert torch.equal(generator, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_the_table_names_parameters_points_and_findings():
    net = mlp()
    attach(net, "dfa", points=["1"])
    text = str(doctor(net, batch(), loss, compile=False))
    assert "0.weight   method" in text
    assert "! trained by backpropagation: 2, 4" in text


def test_a_model_that_no_method_is_at_work_on_is_refused():
    with pytest.raises(DFAError, match=r"no method is at work on Sequential.*attach"):
        doctor(mlp(), batch(), loss)


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (Fitted(exact_every=2), "of 3 training passes 2 exact, 0 probed with noise"),
        (Fitted(exact_every=1, adapt=0.5, exact_between=(1, 2)), "of 3 training passes 2 exact, 0 probed with noise"),
        (LAS(probe_every=2), "of 3 training passes 0 exact, 2 probed as they are"),
        (FDFA(probe_every=4, warm=2), "of 3 training passes 0 exact, 2 probed with noise"),
        (Calibrated("sdfa", exact_every=3), "of 3 training passes 1 exact, 0 probed with noise"),
    ],
)
def test_a_rule_that_looks_is_found_healthy_and_its_looks_are_counted(rule, says):
    net = mlp()
    attachment = attach(net, rule, points=["1", "3"])
    for _ in range(3):
        loss(net, batch()).backward()
    before = attachment.effective_feedback()
    report = doctor(net, batch(), loss)
    assert report.healthy
    assert report.looks == says
    assert says in str(report)
    assert torch.equal(attachment.effective_feedback(), before)
    assert attachment.head.forwards == 3


def test_the_doctor_says_what_the_page_says_where_the_feedback_is_fixed():
    page = " ".join((Path(__file__).parents[3] / "docs" / "what-to-try.md").read_text(encoding="utf-8").split())
    said = [page.index(f"**{advice}**") for advice in ADVICE]
    assert said == sorted(said)
    alone = (BELOW_NORM,)  # feedback that learns needs none of the others
    for rule, told in (("dfa", ADVICE), ("sdfa", ADVICE), ("fitted", alone), ("bp", ()), ("shallow", ())):
        net = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2))
        attach(net, rule, points=["1"])
        report = doctor(net, torch.randn(5, 4), lambda net, x: net(x).square().mean(), compile=False, autocast=False)
        assert report.advice == told
        assert [line for line in ADVICE if f"- {line}" in str(report)] == list(told)
        assert report.healthy


@pytest.mark.parametrize(("output", "told"), [(None, True), ("2", True), ("1", False)])
def test_the_doctor_sees_whether_the_error_is_taken_below_the_last_norm(output, told):
    net = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 2))
    attachment = attach(net, "dfa", points=["0"], output=output)
    for attachment.method in ("dfa", "fitted"):
        report = doctor(net, torch.randn(5, 4), lambda net, x: net(x).square().mean(), compile=False, autocast=False)
        assert (BELOW_NORM in report.advice) is told


def test_the_doctor_gives_no_advice_on_norms_to_a_model_without_them():
    net = mlp()
    attach(net, "dfa", points=["1", "3"])
    report = doctor(net, batch(), loss, compile=False, autocast=False)
    assert report.advice
    assert "norm" not in " ".join(report.advice)
