"""A checkpoint of a pipeline is read by any number of stages."""

import pytest
import torch
from torch.distributed.pipelining import PipelineStage

from tests.processes import in_processes
from tests.tinydfa.pipelining.nets import data, mean, net, points_of, stage_of
from tinydfa import DFAError
from tinydfa.pipelining import ScheduleDFA, load, save
from tinydfa.rules import DKP, FDFA, Fitted

STEPS = data(steps=5)


RULES = {
    "dfa": "dfa",
    "fitted": Fitted(exact_every=2),
    "dkp": DKP(lr=0.5, every=2),
    "fdfa": FDFA(probe_every=2, warm=1),
}


def made(rank, stages, rule, fresh=False):
    module = stage_of(net(seed=0 if fresh else rank), stages, rank)  # other weights until they are loaded
    stage = PipelineStage(module, rank, stages, torch.device("cpu"))
    schedule = ScheduleDFA(stage, 4, mean, rule=RULES.get(rule, rule), points=points_of(module), seed=7)
    return module, schedule, torch.optim.Adam(module.parameters(), lr=0.01)


def train(stage, schedule, optimizer, steps):
    for x, y in steps:
        optimizer.zero_grad()
        schedule.step(*([x] if stage == 0 else []), **({"target": y} if schedule._stage.is_last else {}))
        optimizer.step()


def start(rank, folder, rule):
    """Three steps on two stages, saved twice: after the second, which is replaced, and the third; then two more."""
    module, schedule, optimizer = made(rank, 2, rule)
    module.load_state_dict(stage_of(net(), 2, rank).state_dict())
    train(rank, schedule, optimizer, STEPS[:2])
    save(folder / "checkpoint", schedule, optimizer, step=2)
    train(rank, schedule, optimizer, STEPS[2:3])
    save(folder / "checkpoint", schedule, optimizer, step=3)
    train(rank, schedule, optimizer, STEPS[3:])
    torch.save(module.state_dict(), folder / f"whole{rank}.pt")


def go_on(rank, folder, stages, rule):
    module, schedule, optimizer = made(rank, stages, rule)
    done = load(folder / "checkpoint", schedule, optimizer)
    assert done == 3
    train(rank, schedule, optimizer, STEPS[done:])
    torch.save(module.state_dict(), folder / f"resumed{stages}-{rank}.pt")
    _, other, fresh = made(rank, stages, "sdfa", fresh=True)
    with pytest.raises(DFAError, match=r"was trained by .*and this pipeline by SignDFA\(\)"):
        load(folder / "checkpoint", other, fresh)
    with pytest.raises(DFAError, match="holds no checkpoint of a pipeline"):
        load(folder / "elsewhere", schedule, optimizer)


@pytest.mark.parametrize("rule", RULES)
def test_a_run_resumed_with_other_numbers_of_stages_ends_with_the_same_weights(tmp_path, rule):
    in_processes(2, start, tmp_path, rule)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["checkpoint"]
    whole = {}
    for rank in range(2):
        whole |= torch.load(tmp_path / f"whole{rank}.pt", weights_only=True)
    for stages in (2, 3):
        (tmp_path / "store").unlink(missing_ok=True)
        in_processes(stages, go_on, tmp_path, stages, rule)
        found = {}
        for rank in range(stages):
            found |= torch.load(tmp_path / f"resumed{stages}-{rank}.pt", weights_only=True)
        assert found.keys() == whole.keys()
        for name, weight in found.items():
            torch.testing.assert_close(weight, whole[name], rtol=1e-9, atol=1e-12)
