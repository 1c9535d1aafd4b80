"""What a stage waits for, and how many microbatches it holds meanwhile."""

import json
import time

import pytest
import torch
from torch import nn
from torch.distributed.pipelining import PipelineStage

from tests.processes import in_processes, in_two_processes
from tests.tinydfa.pipelining.nets import data, mean, net, points_of, stage_of
from tinydfa.pipelining import ScheduleDFA


class Seen(torch.autograd.Function):
    """Counts the forward passes whose backward pass has not come, and calls back in the backward pass."""

    @staticmethod
    def forward(ctx, x, spy):
        ctx.spy = spy
        spy.held += 1
        spy.most = max(spy.most, spy.held)
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        ctx.spy.held -= 1
        ctx.spy.at_backward()
        return gradient, None


class Spy(nn.Module):
    def __init__(self):
        super().__init__()
        self.held, self.most, self.at_backward = 0, 0, lambda: None

    def forward(self, x):
        return Seen.apply(x, self) if torch.is_grad_enabled() else x


def made(rank, stages, microbatches=8, **options):
    part = stage_of(net(), stages, rank)
    names = [name for name, _ in part.named_children()]
    spy = Spy()
    module = nn.Sequential()
    for number, name in enumerate(names):
        module.add_module(name, part.get_submodule(name))
        if number == 0:
            module.add_module("spy", spy)
    stage = PipelineStage(module, rank, stages, torch.device("cpu"))
    return spy, stage, ScheduleDFA(stage, microbatches, mean, points=points_of(module), **options)


def step(stage, schedule, x, y, everywhere=False):
    give = {"target": y} if stage.is_last or everywhere else {}
    schedule.step(*([x] if stage.is_first else []), **give)


def hold(rank, folder):
    found = {}
    for name, options in (("flush", {}), ("overlap", {"overlap": True}), ("drtp", {"rule": "drtp", "overlap": True})):
        spy, stage, schedule = made(rank, 3, **options)
        for x, y in data(batch=24):
            step(stage, schedule, x, y, everywhere=name == "drtp")
        buffers = {id(info.buffer) for infos in stage.args_recv_info.values() for info in infos}
        found[name] = (spy.most, spy.held, len(buffers))
    (folder / f"{rank}.json").write_text(json.dumps(found))


def test_a_stage_holds_no_more_microbatches_than_its_schedule_needs(tmp_path):
    in_processes(3, hold, tmp_path)
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3)]
    assert [stage["flush"][:2] for stage in found] == [[3, 0], [2, 0], [1, 0]]
    assert [stage["overlap"][:2] for stage in found] == [[3, 0], [3, 0], [3, 0]]
    assert [stage["drtp"][:2] for stage in found] == [[1, 0], [1, 0], [1, 0]]
    for stage, flush, overlap in ((1, 3, 4), (2, 2, 4)):  # what is held, and one on its way; of eight microbatches
        assert found[stage]["flush"][2] == flush
        assert found[stage]["overlap"][2] == overlap


def go_ahead(rank, folder):
    """The last stage does not end its step before the first has begun the next; with a flush it sees that it cannot."""
    x, y = data()[0]
    for overlap in (True, False):
        spy, stage, schedule = made(rank, 2, microbatches=2, overlap=overlap)
        step(stage, schedule, x, y)
        gone_ahead = folder / f"{overlap}"

        def wait(gone_ahead=gone_ahead, overlap=overlap):
            deadline = time.monotonic() + (60 if overlap else 1)
            while not gone_ahead.exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            assert gone_ahead.exists() is overlap

        if rank == 1:
            spy.at_backward = wait
        step(stage, schedule, x, y)
        if rank == 0:
            gone_ahead.write_text("")


def test_a_stage_goes_on_when_its_own_weights_are_done_if_it_may(tmp_path):
    in_two_processes(go_ahead, tmp_path)


def look(rank, folder):
    _, stage, schedule = made(rank, 2, microbatches=4)
    x, y = data()[0]
    step(stage, schedule, x, y)
    before = {name: weight.grad.clone() for name, weight in stage.submod.named_parameters()}
    losses = []
    out = schedule.eval(*([x] if rank == 0 else []), **({"target": y, "losses": losses} if rank == 1 else {}))
    if rank == 1:
        whole = net()(x)
        torch.testing.assert_close(out, whole, rtol=1e-12, atol=0)
        assert torch.stack(losses).mean().item() == pytest.approx(mean(whole, y).item(), rel=1e-12)
    for name, weight in stage.submod.named_parameters():
        assert torch.equal(weight.grad, before[name])


def test_eval_gives_output_and_losses_and_no_gradient(tmp_path):
    in_two_processes(look, tmp_path)
