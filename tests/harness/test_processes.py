"""What is shared among processes, and that only the first of them writes."""

import json
from itertools import chain

import pytest
import torch

from harness import processes
from harness.errors import UserError
from harness.processes import Processes, asked_of_accelerate
from harness.run import Run


@pytest.fixture
def as_process(monkeypatch):
    """Pretend to be one of several processes that all hold what this one holds."""

    def become(rank, size):
        monkeypatch.setattr("harness.run.run.current", lambda: Processes(rank, size))
        monkeypatch.setattr(Processes, "gather", lambda self, value: [value] * self.size)

    return become


def test_shares_of_a_batch_are_disjoint_and_complete():
    rows = list(range(11))
    shares = [Processes(rank, 3).share(rows) for rank in range(3)]
    assert sorted(chain(*shares)) == rows
    assert {len(share) for share in shares} == {3, 4}
    assert Processes().share(rows) == rows


def test_the_shares_of_all_processes_make_the_whole(monkeypatch):
    whole = torch.arange(14).view(7, 2)
    monkeypatch.setattr(Processes, "gather", lambda self, value: [whole[rank::3] for rank in range(3)])
    assert torch.equal(Processes(1, 3).merge(whole[1::3]), whole)
    assert torch.equal(Processes().merge(whole), whole)


@pytest.mark.parametrize(
    ("command", "asked"),
    [
        ("python accelerate launch --num_processes 4 -m recsys.train", 4),
        ("/bin/python /opt/bin/accelerate launch --num_processes=3 -m recsys.train", 3),
        ("/bin/accelerate-launch --num-processes 2 train.py", 2),
        ("python -m accelerate.commands.accelerate_cli launch --num_processes 2 -m recsys.train", 2),
        ("python accelerate launch -m recsys.train", 1),
        ("python accelerate launch -m recsys.train --num_processes", 1),
        ("python train.py --num_processes 4", 1),
        ("", 1),
    ],
)
def test_what_accelerate_was_asked_for_is_read_off_its_command(command, asked):
    assert asked_of_accelerate(command.split()) == asked


def test_a_process_started_alone_stays_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    assert processes.join("cpu") == torch.device("cpu")
    assert processes.current() == Processes(0, 1)


def test_several_processes_refuse_one_particular_gpu(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"--device cuda:1: several processes take a GPU each"):
        processes.join("cuda:1")


def test_a_task_that_trains_in_one_process_refuses_several_before_it_makes_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"2 processes were started, and graphs trains in one\. Start it without"):
        Run("graphs", "name", {"lr": 1}, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_task_whose_processes_joined_is_not_refused(tmp_path, as_process, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    as_process(0, 2)
    with Run("recsys", "name", {"lr": 1}, tmp_path / "run"):
        assert (tmp_path / "run" / "config.yaml").exists()


def finish(run):
    return run.finish(model="m", dataset="d", method="dfa", seed=0, metrics={"auc": 0.5}, device="cpu")


def test_other_processes_than_the_first_write_and_print_nothing(tmp_path, as_process, capsys):
    as_process(1, 2)
    with Run("task", "name", {"lr": 1}, tmp_path / "run") as run:
        assert run.restore() is None
        run.log(1, loss=1.0)
        run.save(1, weight=torch.ones(2))
        result = finish(run)
    assert result["metrics"] == {"auc": 0.5}
    assert not (tmp_path / "run").exists()
    assert capsys.readouterr().out == ""


def test_every_process_gets_its_own_generators_back(tmp_path, as_process, monkeypatch):
    as_process(0, 2)
    states = []

    def gather(self, value):
        torch.manual_seed(7)  # the second process is elsewhere in its numbers
        from harness.seeds import generator_states

        states.extend([value, generator_states()])
        return states

    monkeypatch.setattr(Processes, "gather", gather)
    torch.manual_seed(3)
    with Run("task", "name", {"lr": 1}, tmp_path) as run:
        run.log(1, loss=1.0)
        run.save(1, weight=torch.ones(2))
    for rank, seed in ((0, 3), (1, 7)):
        as_process(rank, 2)
        with Run("task", "name", {"lr": 1}, tmp_path, resume=True) as run:
            assert run.restore()["step"] == 1
        assert torch.rand(()) == torch.rand((), generator=torch.Generator().manual_seed(seed))


def test_a_run_is_resumed_by_as_many_processes_as_started_it(tmp_path, as_process):
    with Run("task", "name", {"lr": 1}, tmp_path) as run:
        run.log(1, loss=1.0)
        run.save(1)
    before = (tmp_path / "metrics.jsonl").read_text()
    as_process(0, 2)
    with (
        Run("task", "name", {"lr": 1}, tmp_path, resume=True) as run,
        pytest.raises(UserError, match="a run of 1 process, and this is one of 2"),
    ):
        run.restore()
    assert (tmp_path / "metrics.jsonl").read_text() == before
    assert json.loads(before)["loss"] == 1.0


@pytest.mark.parametrize(
    ("asked", "config", "message"),
    [
        (
            "bf16",
            {"precision": "fp32"},
            r"mixed_precision bf16, and this run for --precision fp32.*Add --precision",
        ),
        ("fp16", {"precision": "fp32"}, r"mixed_precision fp16, .*Use no or bf16: launch with --mixed_precision no"),
        ("fp8", {"precision": "bf16"}, r"mixed_precision fp8, and this run for --precision bf16"),
        ("bf16", {}, r"mixed_precision bf16, and task, which has no option for that, trains in float32"),
    ],
)
def test_another_precision_than_accelerate_was_asked_for_is_refused_before_a_folder_is_made(
    tmp_path, monkeypatch, asked, config, message
):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", asked)
    with pytest.raises(UserError, match=message):
        Run("task", "name", config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("asked", "config"), [("no", {"precision": "bf16"}), ("bf16", {"precision": "bf16"}), ("no", {}), (None, {})]
)
def test_the_precision_that_accelerate_was_asked_for_or_none_is_no_contradiction(tmp_path, monkeypatch, asked, config):
    if asked is None:
        monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    else:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", asked)
    Run("task", "name", config, tmp_path / "run").__exit__(None, None, None)
    assert (tmp_path / "run" / "config.yaml").exists()


def broadcast_of(monkeypatch, sent):
    """Pretend that the first process sends `sent` (None: what it is given) to this one."""

    def broadcast(values):
        values[:] = values if sent is None else sent

    monkeypatch.setattr("torch.distributed.broadcast_object_list", broadcast)


def test_what_all_need_is_made_by_the_first_process_alone(monkeypatch):
    made = []
    broadcast_of(monkeypatch, None)
    assert Processes(0, 2).once(lambda: made.append("first") or 7) == 7
    broadcast_of(monkeypatch, [7, None])
    assert Processes(1, 2).once(lambda: made.append("second") or 8) == 7
    assert Processes().once(lambda: made.append("alone") or 9) == 9
    assert made == ["first", "alone"]


def test_a_mistake_that_the_first_process_finds_ends_all(monkeypatch):
    def missing():
        raise UserError("no such file")

    sent = []
    monkeypatch.setattr("torch.distributed.broadcast_object_list", sent.extend)
    with pytest.raises(UserError, match="no such file"):
        Processes(0, 2).once(missing)
    broadcast_of(monkeypatch, sent)
    with pytest.raises(UserError, match="no such file"):
        Processes(1, 2).once(lambda: pytest.fail("read by the second"))


def test_tensors_are_averaged_in_place_and_keep_their_shapes(monkeypatch):
    other = torch.tensor([10.0, 20.0, 30.0, 40.0, 50.0])
    monkeypatch.setattr("torch.distributed.all_reduce", lambda tensor: tensor.add_(other))
    matrix, vector = torch.tensor([[0.0, 2.0], [4.0, 6.0]]), torch.tensor([8.0])
    Processes(0, 2).average([matrix, vector])
    assert (matrix.tolist(), vector.tolist()) == ([[5.0, 11.0], [17.0, 23.0]], [29.0])
    Processes().average([vector])
    assert vector.tolist() == [29.0]
