"""A pipeline's gradients are those of one process."""

import pytest
import torch
from torch import nn
from torch.distributed.pipelining import PipelineStage, SplitPoint, pipeline

import tinydfa
from tests.processes import in_processes, saved_by
from tests.tinydfa.pipelining.nets import data, mean, net, points_of, stage_of, total
from tinydfa import Feedback, attach
from tinydfa.feedback.projectors import NeverStored
from tinydfa.pipelining import ScheduleDFA

CASES = {
    "dfa": {"rule": "dfa"},
    "overlap": {"rule": "dfa", "overlap": True, "microbatches": 6},
    "overlap, few": {"rule": "dfa", "overlap": True, "microbatches": 1},
    "sdfa": {"rule": "sdfa"},
    "sum": {"rule": "dfa", "scale_grads": False},
    "tdfa": {"rule": tinydfa.rules.TernaryDFA(threshold=0.01)},
    "drtp": {"rule": "drtp", "overlap": True},
    "own columns": {"rule": "dfa", "feedback": Feedback(shared=False, scaling="point", seed=3)},
    "projector": {"rule": "dfa", "feedback": NeverStored(seed=2)},
    "error sum": {"rule": "dfa", "feedback": Feedback(error_sum=True, distribution="sign")},
}


def train_as_stages(rank, folder, stages):
    """Every case for some steps of SGD; leaves the weights' gradients and the weights of each stage."""
    found = {}
    for name, case in CASES.items():
        options = dict(case)
        module = stage_of(net(), stages, rank)
        stage = PipelineStage(module, rank, stages, torch.device("cpu"))
        loss = total if options.get("scale_grads") is False else mean
        number = options.pop("microbatches", 4)
        schedule = ScheduleDFA(stage, number, loss, points=points_of(module), **options)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
        losses = []
        for x, y in data():
            optimizer.zero_grad()
            of_step = []
            give = {"target": y, "losses": of_step} if stage.is_last or name == "drtp" else {}
            schedule.step(*([x] if stage.is_first else []), **give)
            optimizer.step()
            losses += [loss.item() for loss in of_step]
        grads = {key: weight.grad for key, weight in module.named_parameters()}
        found[name] = {"grads": grads, "weights": module.state_dict(), "losses": losses}
    torch.save(found, folder / f"{rank}.pt")


def one_process(case):
    """The same steps by `attach` on the whole model and the whole batch."""
    options = dict(case)
    options.pop("microbatches", None)
    model = net()
    mean_loss = options.pop("scale_grads", True)
    options.pop("overlap", None)
    attachment = attach(model, options.pop("rule"), points=[str(n) for n in (1, 3, 5, 7, 9)], **options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for x, y in data():
        optimizer.zero_grad()
        attachment.target = y
        (mean if mean_loss else total)(model(x), y).backward()
        optimizer.step()
    return {key: weight.grad for key, weight in model.named_parameters()}, model.state_dict()


def train_as_traced(rank, folder):
    """Stages that torch has cut out of the traced model."""
    pipe = pipeline(net(), (data()[0][0][:3],), split_spec={"6": SplitPoint.BEGINNING})
    stage = pipe.build_stage(rank, torch.device("cpu"))
    schedule = ScheduleDFA(stage, 4, mean, points=points_of(stage.submod))
    optimizer = torch.optim.SGD(stage.submod.parameters(), lr=0.05)
    for x, y in data():
        optimizer.zero_grad()
        schedule.step(*([x] if stage.is_first else []), **({"target": y} if stage.is_last else {}))
        optimizer.step()
    torch.save({key: weight.grad for key, weight in stage.submod.named_parameters()}, folder / f"{rank}.pt")


def test_stages_of_a_traced_model_train_alike(tmp_path):
    in_processes(2, train_as_traced, tmp_path)
    grads, _ = one_process(CASES["dfa"])
    found = {}
    for rank in range(2):
        found |= torch.load(tmp_path / f"{rank}.pt", weights_only=True)
    assert found.keys() == grads.keys()
    for key, grad in found.items():
        torch.testing.assert_close(grad, grads[key], rtol=1e-12, atol=1e-14)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What all stages found, by number of stages and case."""
    folder = tmp_path_factory.mktemp
    return {stages: saved_by(stages, train_as_stages, folder(f"stages{stages}")) for stages in (2, 3)}


@pytest.mark.parametrize("stages", [2, 3])
@pytest.mark.parametrize("name", CASES)
def test_gradients_and_weights_are_those_of_one_process(trained, name, stages):
    grads, weights = one_process(CASES[name])
    parts = [part[name] for part in trained[stages]]
    assert set().union(*[part["grads"] for part in parts]) == set(grads)
    for part in parts:
        for key, grad in part["grads"].items():
            torch.testing.assert_close(grad, grads[key], rtol=1e-12, atol=1e-14)
        for key, weight in part["weights"].items():
            torch.testing.assert_close(weight, weights[key], rtol=1e-12, atol=1e-14)


def test_gradients_are_those_of_the_rule_written_by_hand(trained):
    """Those of the last of three steps of SGD, all of them done by hand."""
    model, steps = net(), data()
    feedback = Feedback().draw(3, 9).double()
    linears = [module for module in model if isinstance(module, nn.Linear)]
    for x, y in steps:
        inputs, h = [], x
        for linear in linears[:-1]:
            inputs.append(h)
            h = torch.tanh(h @ linear.weight.T + linear.bias)
        logits = h @ linears[-1].weight.T + linears[-1].bias
        error = (logits.softmax(dim=1) - nn.functional.one_hot(y, 3)) / len(y)
        deltas = []
        for linear, before in zip(linears[:-1], inputs, strict=True):
            out = torch.tanh(before @ linear.weight.T + linear.bias)
            deltas.append(error @ feedback[:, : out.shape[1]] / 9**0.5 * (1 - out**2))
        expected = [delta.T @ before for delta, before in zip([*deltas, error], [*inputs, h], strict=True)]
        with torch.no_grad():
            for linear, delta, grad in zip(linears, [*deltas, error], expected, strict=True):
                linear.weight -= 0.05 * grad
                linear.bias -= 0.05 * delta.sum(dim=0)
    for stages in (2, 3):
        for part in trained[stages]:
            for key, grad in part["dfa"]["grads"].items():
                if key.endswith("weight"):
                    torch.testing.assert_close(grad, expected[int(key.split(".")[0]) // 2], rtol=1e-10, atol=1e-13)


def test_the_last_stage_returns_a_loss_for_each_microbatch(trained):
    model, (x, y) = net(), data()[0]
    expected = [mean(model(x[part : part + 3]), y[part : part + 3]).item() for part in range(0, 12, 3)]
    assert trained[3][2]["dfa"]["losses"][:4] == pytest.approx(expected, rel=1e-12)
    assert trained[3][0]["dfa"]["losses"] == []
