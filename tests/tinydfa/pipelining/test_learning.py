"""Feedback that learns over stages: gradients and feedback are those of one process with the whole batch."""

import pytest
import torch
from torch.distributed.pipelining import PipelineStage

from tests.processes import saved_by
from tests.tinydfa.pipelining.nets import POINTS, data, mean, net, points_of, stage_of, total
from tinydfa import Feedback, attach
from tinydfa.pipelining import ScheduleDFA
from tinydfa.rules import DKP, EBD, FDFA, LAS, LES, Calibrated, Fitted, ForwardFitted, GrAPE

STEPS = data(steps=5)
CASES = {
    "dkp": {"rule": DKP(lr=0.5)},
    "dkp, every other step, overlapped": {"rule": DKP(lr=0.5, every=2), "overlap": True},
    "dkp, replayed": {"rule": DKP(lr=0.5), "memory": "replay"},
    "ebd": {"rule": EBD(memory=0.9)},
    "fitted": {"rule": Fitted(exact_every=3)},
    "fitted, some rows": {"rule": Fitted(exact_every=2, rows=7), "overlap": True},
    "fitted, sum of errors": {"rule": Fitted(exact_every=2), "feedback": Feedback(error_sum=True, seed=4)},
    "fitted, sum of losses": {"rule": Fitted(exact_every=2), "scale_grads": False},
    "fitted, fewer microbatches than stages": {"rule": Fitted(exact_every=2), "microbatches": 1},
    "fitted, replayed": {"rule": Fitted(exact_every=3), "memory": "replay"},
    "fdfa": {"rule": FDFA(probe_every=2, warm=2, times=2)},
    "fdfa, overlapped": {"rule": FDFA(probe_every=3, warm=0, size=1e-3), "overlap": True, "microbatches": 6},
    "fdfa, with exact steps": {"rule": FDFA(probe_every=2, exact_every=3)},
    "grape": {"rule": GrAPE()},
    "fitted_forward": {"rule": ForwardFitted(probe_every=2, warm=1)},
    "fitted_forward, with exact steps": {"rule": ForwardFitted(probe_every=2, warm=1, exact_every=2, times=2)},
    "las": {"rule": LAS(lr=0.01, probe_every=2)},
    "las, with exact steps, overlapped": {"rule": LAS(exact_every=3), "overlap": True},
    "les": {"rule": LES(lr=0.01)},
    "les, every other step, overlapped": {"rule": LES(lr=0.01, every=2), "overlap": True},
    "les, replayed": {"rule": LES(lr=0.01), "memory": "replay"},
    "les, sum of errors": {"rule": LES(lr=0.01), "feedback": Feedback(error_sum=True, seed=4)},
    "les, sum of losses": {"rule": LES(lr=0.01), "scale_grads": False},
    "les, with similarity, one microbatch": {"rule": LES(lr=0.01, similarity=0.9, width=3), "microbatches": 1},
    "calibrated": {"rule": Calibrated("sdfa", exact_every=2)},
    "calibrated, of a rule that learns": {"rule": Calibrated(DKP(lr=0.5), exact_every=3)},
}


def train_as_stages(rank, folder, stages):
    """Every case for some steps of SGD; leaves each stage's gradients, weights, losses and feedback."""
    found = {}
    for name, case in CASES.items():
        options = dict(case)
        module = stage_of(net(), stages, rank)
        stage = PipelineStage(module, rank, stages, torch.device("cpu"))
        loss = total if options.get("scale_grads") is False else mean
        schedule = ScheduleDFA(stage, options.pop("microbatches", 4), loss, points=points_of(module), **options)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
        grads, losses = [], []
        for x, y in STEPS:
            optimizer.zero_grad()
            of_step = []
            give = {"target": y} if stage.is_last or schedule.rule.local else {}
            give |= {"losses": of_step} if stage.is_last else {}
            schedule.step(*([x] if stage.is_first else []), **give)
            grads.append({key: weight.grad.clone() for key, weight in module.named_parameters()})
            losses.append([loss.item() for loss in of_step])
            optimizer.step()
        state = schedule.state_dict()["learner"]
        columns = (
            {}
            if state is None
            else {
                point: state["matrix"][:, start : start + width] for point, (start, width) in state["columns"].items()
            }
        )
        found[name] = {"grads": grads, "losses": losses, "feedback": columns, "weights": module.state_dict()}
    torch.save(found, folder / f"{rank}.pt")


def one_process(case):
    """The same steps by `attach` on the whole model and the whole batch."""
    options = {name: value for name, value in case.items() if name not in ("microbatches", "overlap", "memory")}
    loss_of = mean if options.pop("scale_grads", True) else total
    model = net()
    attachment = attach(model, options.pop("rule"), points=POINTS, **options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    grads, losses = [], []
    for x, y in STEPS:
        optimizer.zero_grad()
        attachment.target = y
        loss = loss_of(model(x), y)
        loss.backward()
        grads.append({key: weight.grad.clone() for key, weight in model.named_parameters()})
        losses.append(loss.item())
        optimizer.step()
    state = attachment.state_dict()["learner"]
    columns = (
        {}
        if state is None
        else {point: state["matrix"][:, start : start + width] for point, (start, width) in state["columns"].items()}
    )
    return grads, losses, columns


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp
    return {stages: saved_by(stages, train_as_stages, folder(f"stages{stages}")) for stages in (2, 3)}


@pytest.mark.parametrize("stages", [2, 3])
@pytest.mark.parametrize("name", CASES)
def test_every_step_has_the_gradients_of_one_process(trained, name, stages):
    grads, losses, _ = one_process(CASES[name])
    parts = [part[name] for part in trained[stages]]
    for step, expected in enumerate(grads):
        assert set().union(*[part["grads"][step] for part in parts]) == set(expected)
        for part in parts:
            for key, grad in part["grads"][step].items():
                torch.testing.assert_close(grad, expected[key], rtol=1e-9, atol=1e-12)
        of_step = parts[-1]["losses"][step]
        found = sum(of_step) / (1 if CASES[name].get("scale_grads") is False else len(of_step))
        assert found == pytest.approx(losses[step], rel=1e-10)


@pytest.mark.parametrize("stages", [2, 3])
@pytest.mark.parametrize("name", CASES)
def test_the_feedback_is_that_of_one_process_after_several_steps(trained, name, stages):
    _, _, expected = one_process(CASES[name])
    found = {}
    for part in trained[stages]:
        found |= part[name]["feedback"]
    assert found.keys() == expected.keys()
    assert expected or name == "calibrated"
    for point, columns in found.items():
        torch.testing.assert_close(columns, expected[point], rtol=1e-9, atol=1e-12)
