"""What a pipeline refuses, in words."""

from datetime import timedelta

import pytest
import torch
from torch import distributed, nn
from torch.distributed.pipelining import PipelineStage

from tests.processes import in_two_processes
from tests.tinydfa.pipelining.nets import data, mean, net, points_of, stage_of
from tinydfa import DFAError, NeverStored, attach
from tinydfa.errors import PointError, ShapeError
from tinydfa.pipelining import ScheduleDFA, StageLostError
from tinydfa.rules import LES, Calibrated

X, Y = data(steps=1)[0]


def stage(rank, module):
    return PipelineStage(module, rank, 2, torch.device("cpu"))


def apart(rank, module):
    """A stage in a group of its own: after an error a message may still be on its way."""
    return PipelineStage(module, rank, 2, torch.device("cpu"), group=distributed.new_group([0, 1]))


def step(schedule, rank, x=X, y=Y):
    tells = rank == 1 or schedule.rule.needs_target
    schedule.step(*([x] if rank == 0 else []), **({"target": y} if tells else {}))


def at_construction(rank, folder):
    module = stage_of(net(), 2, rank)
    points = points_of(module)
    for rule, message in (
        ("fa", "does not broadcast"),
        ("bp", "Schedule1F1B"),
        ("shallow", "does not broadcast"),
        (Calibrated("les"), r"rule=LES\(.* has exact passes among those"),
    ):
        with pytest.raises(DFAError, match=message):
            ScheduleDFA(stage(rank, module), 4, mean, rule=rule, points=points)
    with pytest.raises(DFAError, match=r"fitted changes a feedback matrix, and .*NeverStored.* stands in its place"):
        ScheduleDFA(stage(rank, module), 4, mean, rule="fitted", feedback=NeverStored(seed=2), points=points)
    with pytest.raises(DFAError, match=r"fitted decides by the alignment of all points.*without adapt"):
        ScheduleDFA(stage(rank, module), 4, mean, rule="fitted(adapt=0.5)", points=points)
    alone = distributed.new_subgroups(1)[0]
    with pytest.raises(DFAError, match=r"has 1 of 2 processes: several pipelines side by side"):
        ScheduleDFA(PipelineStage(net(), 0, 1, torch.device("cpu"), group=alone), 4, mean, rule="dkp", points=["1"])
    with pytest.raises(DFAError, match="n_microbatches is 0"):
        ScheduleDFA(stage(rank, module), 0, mean, points=points)
    with pytest.raises(DFAError, match="wrapped by DistributedDataParallel"):
        ScheduleDFA(stage(rank, nn.parallel.DistributedDataParallel(net())), 4, mean, points=["module.1"])
    if rank == 0:
        with pytest.raises(PointError, match="needs feedback points"):
            ScheduleDFA(stage(0, module), 4, mean)
        with pytest.raises(PointError, match="matches no submodule"):
            ScheduleDFA(stage(0, module), 4, mean, points=["layers.*"])
        attached = net()
        attach(attached, "dfa", points=["1"])
        with pytest.raises(DFAError, match="is attached"):
            ScheduleDFA(stage(0, attached), 4, mean, points=["1"])
    else:
        with pytest.raises(DFAError, match="no loss_fn"):
            ScheduleDFA(stage(1, module), 4, points=points)
        with pytest.raises(PointError, match="output 'top' is no submodule"):
            ScheduleDFA(stage(1, module), 4, mean, points=points, output="top")


def test_what_cannot_train_is_refused_before_it_starts(tmp_path):
    in_two_processes(at_construction, tmp_path)


def hand_made(rank):
    """Two stages whose weights differ, though the shapes of some are alike."""
    torch.manual_seed(rank)
    first = nn.Sequential(nn.Linear(6, 3), nn.Tanh(), nn.Linear(3, 5), nn.Tanh()).double()
    second = nn.Sequential(nn.Linear(5, 6, bias=False), nn.Tanh(), nn.Linear(6, 3)).double()
    return [first, second][rank]


def tied_over_stages(rank, folder):
    module, points = hand_made(rank), [["1", "3"], ["1"]][rank]
    step(ScheduleDFA(apart(rank, module), 4, mean, points=points), rank)  # these are not
    module = hand_made(rank)
    with torch.no_grad():
        module[2 * rank].weight.copy_(torch.arange(18).view(3, 6))
    schedule = ScheduleDFA(apart(rank, module), 4, mean, points=points)
    with pytest.raises(DFAError, match=r"'0.weight' of stage 0 and '2.weight' of stage 1 hold the same numbers.*untie"):
        step(schedule, rank)


def test_a_weight_tied_over_stages_is_refused(tmp_path):
    in_two_processes(tied_over_stages, tmp_path)


def in_the_first_step(rank, folder):
    for options, message in (
        ({"seed": rank}, "stage 1 was made with feedback"),
        ({"rule": ("dfa", "sdfa")[rank]}, r"stage 1 was made with rule SignDFA\(\), and stage 0 with DFA\(\)"),
        ({"overlap": rank == 1}, "stage 1 was made with overlap True"),
        ({"memory": ("replay", None)[rank]}, "stage 1 was made with memory None"),
        ({"rule": "tdfa"}, "one microbatch at a time. Give tdfa a threshold"),
        ({"rule": LES(similarity=0.5)}, "one microbatch at a time.* leave out the similarity of les"),
    ):
        module = stage_of(net(), 2, rank)
        with pytest.raises(DFAError, match=message):
            step(ScheduleDFA(apart(rank, module), 4, mean, points=points_of(module), **options), rank)


def after_the_first_step(rank, folder):
    module = stage_of(net(), 2, rank)
    schedule = ScheduleDFA(apart(rank, module), 4, mean, points=points_of(module))
    step(schedule, rank)
    with pytest.raises(ShapeError, match="a batch of 10 cannot be cut into 4 equal microbatches"):
        step(schedule, rank, X[:10], Y[:10])
    with torch.no_grad(), pytest.raises(DFAError, match=r"Call eval\(\)"):
        step(schedule, rank)
    if rank == 0:
        with pytest.raises(ShapeError, match="was \\(3, 6\\) in the first step"):
            schedule.step(X[:8])
    else:
        with pytest.raises(DFAError, match="the last stage was given no target"):
            schedule.step()


def test_a_batch_of_another_size_is_refused(tmp_path):
    in_two_processes(after_the_first_step, tmp_path)


def test_what_stages_disagree_on_is_refused_at_every_stage(tmp_path):
    in_two_processes(in_the_first_step, tmp_path)


def ends_above_its_point(rank, folder):
    module = stage_of(net(), 2, rank)
    points = ["3"] if rank == 0 else ["7"]
    schedule = ScheduleDFA(apart(rank, module), 4, mean, points=points, timeout=timedelta(seconds=10))
    if rank == 0:
        with pytest.raises(PointError, match=r"stage 0 does not end at a feedback point.*last one \('3'\)"):
            step(schedule, rank)
    else:
        with pytest.raises(StageLostError, match=r"stage 1 has lost stage 0.*not answered for 10 seconds"):
            step(schedule, rank)


def test_a_stage_that_does_not_end_at_a_point_is_refused(tmp_path):
    in_two_processes(ends_above_its_point, tmp_path)
