"""A stage that runs forward again has the gradients of one that keeps its graphs, in less memory."""

import pytest
import torch
from torch import nn
from torch.distributed.pipelining import PipelineStage

from tests.processes import in_processes, in_two_processes
from tests.tinydfa.pipelining.nets import data, mean, net, points_of, stage_of
from tinydfa import DFAError, Feedback
from tinydfa.errors import ReplayError
from tinydfa.pipelining import ScheduleDFA

STEPS = data(steps=3)


class Around(nn.Module):
    """A point inside of a residual block, which the stream goes around."""

    def __init__(self, width):
        super().__init__()
        self.up, self.inner, self.end = nn.Linear(width, width), nn.Tanh(), nn.Tanh()

    def forward(self, x):
        return self.end(x.sin() * self.up.weight.mean() + self.inner(self.up(x)))


def plain(rank):
    module = stage_of(net(), 2, rank)
    return module, points_of(module)


def residual(rank):
    torch.manual_seed(0)
    parts = [nn.Linear(6, 5), Around(5), Around(5)], [Around(5), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)]
    return nn.Sequential(*parts[rank]).double(), [["1.inner", "1.end", "2.inner", "2.end"], ["0.inner", "0.end", "2"]][
        rank
    ]


def random(rank):
    """Dropout, and batch norm, whose statistics count once."""
    torch.manual_seed(0)
    parts = [nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(0.3)], [nn.Linear(5, 4), nn.Dropout(0.3), nn.Linear(4, 3)]
    return nn.Sequential(*parts[rank]).double(), [["2"], ["1"]][rank]


def tied(rank):
    """One weight in two blocks of a stage."""
    torch.manual_seed(0)
    one = nn.Linear(5, 5)
    parts = [nn.Linear(6, 5), nn.Tanh(), one, nn.Tanh(), one, nn.Tanh()], [nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)]
    return nn.Sequential(*parts[rank]).double(), [["1", "3", "5"], ["1"]][rank]


def at_the_output(rank):
    """The last point is the output, and feeds nothing."""
    torch.manual_seed(0)
    parts = [nn.Linear(6, 5), nn.Tanh()], [nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)]
    return nn.Sequential(*parts[rank]).double(), [["1"], ["1", "2"]][rank]


CASES = {
    "dfa": (plain, {}),
    "overlapped": (plain, {"overlap": True, "microbatches": 6}),
    "own columns": (plain, {"feedback": Feedback(shared=False, scaling="point")}),
    "drtp": (plain, {"rule": "drtp"}),
    "a residual stream around a point": (residual, {}),
    "dropout and batch norm": (random, {}),
    "a tied weight": (tied, {"overlap": True}),
    "a point at the output": (at_the_output, {}),
}


def trained(rank, name, memory):
    make, options = CASES[name]
    module, points = make(rank)
    stage = PipelineStage(module, rank, 2, torch.device("cpu"))
    options = {"microbatches": 4} | options
    schedule = ScheduleDFA(stage, options.pop("microbatches"), mean, points=points, memory=memory, **options)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    torch.manual_seed(1)
    grads = []
    for x, y in STEPS:
        optimizer.zero_grad()
        schedule.step(*([x] if rank == 0 else []), **({"target": y} if rank == 1 or name == "drtp" else {}))
        grads.append({key: weight.grad.clone() for key, weight in module.named_parameters()})
        optimizer.step()
    return grads, module.state_dict()


def replayed(rank, folder):
    for name in CASES:
        (grads, state), (others, other_state) = trained(rank, name, None), trained(rank, name, "replay")
        for step, of_step in enumerate(grads):
            for key, grad in of_step.items():
                torch.testing.assert_close(others[step][key], grad, rtol=1e-12, atol=1e-14)
        assert all(torch.equal(state[key], other_state[key]) for key in state if "running" in key or "batches" in key)


def test_gradients_and_statistics_are_those_of_a_stage_that_keeps_its_graphs(tmp_path):
    in_two_processes(replayed, tmp_path)


class Alive:
    """Counts what the graphs have saved."""

    def __init__(self):
        self.now = self.most = 0

    def pack(self, tensor):
        return Saved(self, tensor.detach())  # with its graph it would hold itself

    def unpack(self, saved):
        return saved.tensor


class Saved:
    def __init__(self, alive, tensor):
        self.alive, self.tensor = alive, tensor
        alive.now += 1
        alive.most = max(alive.most, alive.now)

    def __del__(self):
        self.alive.now -= 1


def deep(rank):
    torch.manual_seed(rank)
    blocks = [part for _ in range(8) for part in (nn.Linear(6, 6), nn.Tanh())]
    module = nn.Sequential(*blocks, *([nn.Linear(6, 3)] if rank == 1 else [])).double()
    return module, [str(number) for number in range(1, 16, 2)]


def counted(rank, folder):
    most = {}
    for memory in (None, "replay"):
        module, points = deep(rank)
        stage = PipelineStage(module, rank, 2, torch.device("cpu"))
        schedule = ScheduleDFA(stage, 4, mean, points=points, memory=memory, overlap=True)
        for x, y in STEPS:
            alive = Alive()
            with torch.autograd.graph.saved_tensors_hooks(alive.pack, alive.unpack):
                schedule.step(*([x] if rank == 0 else []), **({"target": y} if rank == 1 else {}))
        most[memory] = alive.most
    assert most[None] >= 2 * 8 * 2  # two microbatches of eight blocks
    assert most["replay"] <= 6  # one block, or what lies above the last point


def test_the_graph_of_one_block_is_alive_at_a_time(tmp_path):
    in_two_processes(counted, tmp_path)


class Counts(nn.Module):
    """Does something else each time."""

    def __init__(self):
        super().__init__()
        self.times = 0

    def forward(self, x):
        self.times += 1
        return x * self.times


def other_things(rank, folder):
    module = nn.Sequential(nn.Linear(6, 5), Counts(), nn.Tanh(), nn.Linear(5, 3)).double()
    stage = PipelineStage(module, 0, 1, torch.device("cpu"))
    with pytest.raises(DFAError, match="memory='graphs'"):
        ScheduleDFA(stage, 4, mean, points=["2"], memory="graphs")
    schedule = ScheduleDFA(stage, 4, mean, points=["2"], memory="replay")
    x, y = STEPS[0]
    with pytest.raises(ReplayError, match=r"at feedback point '2' the values are others.*repeatable"):
        schedule.step(x, target=y)


def test_a_stage_that_cannot_be_repeated_is_refused(tmp_path):
    in_processes(1, other_things, tmp_path)
