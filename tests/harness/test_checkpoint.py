"""Checkpoints: what may be saved, what comes back as it was, and damage that is noticed."""

import enum
import errno
import os
import random
from collections import Counter, OrderedDict, UserDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from harness.errors import UserError
from harness.run import NonFiniteLoss, Run, checkpoint
from harness.seeds import generator_states, seed_everything, set_generator_states
from tests.harness.started import Config, started


def test_what_is_saved_is_what_is_restored_and_the_generators_go_on(tmp_path: Path):
    seed_everything(3)
    weights = torch.randn(4)
    started(tmp_path / "run", weights=weights)
    expected = (random.random(), np.random.randn(), torch.randn(3))
    seed_everything(99)
    state = Run("task", "name", Config(resume=True), tmp_path / "run", resume=True).restore()
    assert state is not None
    assert state["step"] == 1
    assert torch.equal(state["weights"], weights)
    found = (random.random(), np.random.randn(), torch.randn(3))
    assert found[:2] == expected[:2]
    assert torch.equal(found[2], expected[2])


def test_generator_states_hold_the_spare_gaussian_of_numpy():
    seed_everything(0)
    np.random.randn()  # leaves a second draw in store
    states = generator_states()
    expected = np.random.randn(3)
    set_generator_states(states)
    assert np.array_equal(np.random.randn(3), expected)


def test_lines_logged_after_the_checkpoint_are_cut(tmp_path: Path):
    run = started(tmp_path / "run")
    run.log(2, train_loss=0.25)
    Run("task", "name", Config(), tmp_path / "run", resume=True).restore()
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == '{"step": 1, "train_loss": 0.5}\n'


def test_a_run_killed_before_its_first_checkpoint_starts_over(tmp_path: Path):
    Run("task", "name", Config(), tmp_path / "run").log(1, train_loss=0.5)
    assert Run("task", "name", Config(), tmp_path / "run", resume=True).restore() is None
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == b""


@pytest.mark.parametrize("size", [0, 1, 100, -1, -100])
def test_a_truncated_checkpoint_is_named_with_the_way_out(tmp_path: Path, size: int):
    folder = tmp_path / "run"
    run = started(folder, weights=torch.zeros(1000))
    run.save(2, weights=torch.ones(1000))
    path = folder / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match=r"checkpoint\.pt is damaged.*mv .*checkpoint\.previous\.pt"):
        Run("task", "name", Config(), folder, resume=True).restore()
    os.replace(folder / "checkpoint.previous.pt", path)  # the way out that the message names
    state = Run("task", "name", Config(), folder, resume=True).restore()
    assert state is not None
    assert state["step"] == 1
    assert state["weights"].sum() == 0


def test_the_checkpoint_before_goes_on_where_the_newest_is_gone(tmp_path: Path):
    folder = tmp_path / "run"
    run = started(folder, weights=torch.zeros(3))
    run.log(2, train_loss=0.4)
    run.save(2, weights=torch.ones(3))
    (folder / "checkpoint.pt").unlink()
    with pytest.raises(UserError, match="holds a run that was started"):
        Run("task", "name", Config(), folder)
    state = Run("task", "name", Config(), folder, resume=True).restore()
    assert state is not None
    assert (state["step"], state["weights"].sum()) == (1, 0)
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("content", [b"", b"\x80\x02nonsense", bytes(range(256))])
def test_where_no_checkpoint_is_sound_none_is_recommended(tmp_path: Path, content: bytes):
    started(tmp_path / "run")
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        (tmp_path / "run" / name).write_bytes(content)
    message = r"checkpoint\.pt is damaged .*and so is .*checkpoint\.previous\.pt\. Restore one of them"
    with pytest.raises(UserError, match=message):
        Run("task", "name", Config(), tmp_path / "run", resume=True).restore()
    (tmp_path / "run" / "checkpoint.pt").unlink()
    with pytest.raises(UserError, match=r"checkpoint\.previous\.pt is damaged.*Restore it"):
        Run("task", "name", Config(), tmp_path / "run", resume=True).restore()


def test_reading_a_run_leaves_a_checkpoint_that_is_being_written(tmp_path: Path):
    started(tmp_path / "run")
    temporary = tmp_path / "run" / "checkpoint.pt.tmp"
    temporary.write_bytes(b"half of it")  # by a training that goes on
    assert checkpoint.read_checkpoint(tmp_path / "run") is not None
    assert temporary.exists()


def test_a_flipped_bit_in_the_weights_is_noticed(tmp_path: Path):
    started(tmp_path / "run", weights=torch.zeros(10000))
    path = tmp_path / "run" / "checkpoint.pt"
    content = bytearray(path.read_bytes())
    content[content.index(bytes(20000)) + 10000] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        Run("task", "name", Config(), tmp_path / "run", resume=True).restore()


class Payload:
    """Code that a pickle would run when loaded."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("executed",)


def test_a_checkpoint_that_carries_code_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    started(tmp_path / "run")
    torch.save({"step": 1, "state": Payload()}, tmp_path / "run" / "checkpoint.pt")
    with pytest.raises(UserError, match="damaged or not a checkpoint of ours"):
        Run("task", "name", Config(), tmp_path / "run", resume=True).restore()
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("value", [np.float64(0.5), np.zeros(2), Path("x"), Payload(), {"a": [Payload()]}])
def test_what_could_not_be_read_back_is_refused_when_saved(tmp_path: Path, value: object):
    run = started(tmp_path / "run")
    with pytest.raises(TypeError, match=r"checkpoint\['state'\]\['best'\].* is a .*; a checkpoint holds tensors"):
        run.save(2, best=value)


class History(dict):
    """A dict with a class of its own."""


class Level(enum.IntEnum):
    LOW = 1


class Marked(torch.Tensor):
    """A tensor with a class of its own."""


SUBCLASSES = (History(loss=[0.5]), defaultdict(list), UserDict(a=1), Level.LOW, np.str_("a"), np.int64(1))


@pytest.mark.parametrize("value", SUBCLASSES, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("place", [lambda value: value, lambda value: {"a": [value]}], ids=["alone", "inside"])
def test_a_subclass_of_a_plain_type_is_refused_when_saved_and_by_its_name(tmp_path: Path, value: object, place):
    run = started(tmp_path / "run")
    with pytest.raises(TypeError, match=rf"\['best'\].* is a .*\.{type(value).__name__}; a checkpoint holds tensors"):
        run.save(2, best=place(value))


def attributed(value: object, attribute: object):
    value.note = attribute  # type: ignore[attr-defined]
    return value


HIDDEN = {  # what lies in a value where no list or dict shows it
    "a tensor's class": torch.ones(2).as_subclass(Marked),
    "a tensor's attribute": attributed(torch.ones(2), Level.LOW),
    "a parameter's attribute": attributed(torch.nn.Parameter(torch.ones(2)), Level.LOW),
    "a mapping's attribute": attributed(OrderedDict(a=1), Level.LOW),
    "a function": attributed(OrderedDict(a=1), lambda: None),
    "a number of 3,000 bits": 2**3000,
}


@pytest.mark.parametrize("value", HIDDEN.values(), ids=HIDDEN)
def test_what_torch_would_not_read_back_is_refused_when_saved(tmp_path: Path, value: object):
    run = started(tmp_path / "run", weights=torch.arange(3.0))
    before = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    with pytest.raises(TypeError, match="could not be read back"):
        run.save(2, best=value)
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == before
    assert not list((tmp_path / "run").glob("*.tmp"))


def test_a_list_that_holds_itself_is_refused_when_saved(tmp_path: Path):
    loop: list = []
    loop.append(loop)
    with pytest.raises(TypeError, match="or holds itself"):
        started(tmp_path / "run").save(2, best=loop)


def test_every_plain_value_comes_back_as_what_it_was(tmp_path: Path):
    weights = torch.nn.Linear(2, 3).state_dict()
    kept = {
        "numbers": [True, -3, 2**1000, 0.1, float("inf"), 1 - 2j],
        "words": ("", "é\udce9", b"\xff\0"),
        "nothing": None,
        "set": {1, "a"},
        "counts": Counter({3: 2}),
        "keys": {(1, 2): 3, torch.float32: 1},
        "of torch": [torch.Size([1, 2]), torch.device("cpu"), torch.bfloat16],
    }
    started(tmp_path / "run", kept=kept, weights=weights, sparse=torch.eye(3).to_sparse())
    state = Run("task", "name", Config(), tmp_path / "run", resume=True).restore()
    assert state is not None
    assert state["kept"] == kept
    assert type(state["weights"]) is OrderedDict
    assert all(torch.equal(state["weights"][name], weights[name]) for name in weights)
    assert torch.equal(state["sparse"].to_dense(), torch.eye(3))


def test_state_dicts_of_optimizers_and_schedulers_are_restored(tmp_path: Path):
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([weight])
    weight.sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    with Run("task", "name", Config(), tmp_path / "run") as run:
        run.save(1, optimizer=optimizer.state_dict(), scheduler=scheduler.state_dict(), shape=weight.shape, best=None)
    state = Run("task", "name", Config(), tmp_path / "run", resume=True).restore()
    assert state is not None
    assert torch.equal(state["optimizer"]["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])
    assert state["scheduler"] == scheduler.state_dict()
    assert (state["shape"], state["best"]) == (torch.Size([2]), None)


def test_a_full_disk_keeps_the_last_checkpoint_and_leaves_no_rest(small_disk: Path):
    folder = small_disk / "run"
    run = started(folder, weights=torch.arange(1000.0))
    before = (folder / "checkpoint.pt").read_bytes()
    with pytest.raises(UserError, match=r"cannot write .*checkpoint\.pt: No space left on device.*is intact.*--out"):
        run.save(2, weights=torch.randn(10**6))
    assert (folder / "checkpoint.pt").read_bytes() == before
    assert not list(folder.glob("*.tmp"))
    run.save(2, weights=torch.zeros(1))  # and goes on when there is room again


def test_a_write_that_fails_halfway_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "run"
    run = started(folder, weights=torch.arange(1000.0))
    before = (folder / "checkpoint.pt").read_bytes()

    def half(content: object, file) -> None:
        file.write(before[: len(before) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint.torch, "save", half)
    with pytest.raises(UserError, match="No space left on device"):
        run.save(2, weights=torch.zeros(1))
    assert (folder / "checkpoint.pt").read_bytes() == before
    assert sorted(path.name for path in folder.glob("*.tmp")) == []


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(tmp_path: Path):
    run = started(tmp_path / "run")
    before = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    with pytest.raises(NonFiniteLoss, match=r"the loss is nan at step 2.*Lower the learning rate"):
        run.log(2, train_loss=torch.tensor(float("nan")))
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == before
    assert (tmp_path / "run" / "metrics.jsonl").read_text().endswith('{"step": 2, "train_loss": null}\n')


def test_what_has_a_state_dict_is_saved_and_brought_back_by_it(tmp_path: Path):
    net, other = nn.Linear(2, 1), nn.Linear(2, 1)
    with Run("task", "name", Config(), tmp_path / "run") as run:
        assert run.resume({"model": net}) == 0
        run.save(3, model=net)
    with Run("task", "name", Config(), tmp_path / "run", resume=True) as run:
        assert run.resume({"model": other}) == 3
    assert torch.equal(net.weight, other.weight)


def test_a_part_that_the_checkpoint_lacks_is_named(tmp_path: Path):
    with Run("task", "name", Config(), tmp_path / "run") as run:
        run.save(3, model=nn.Linear(2, 1))
    with (
        Run("task", "name", Config(), tmp_path / "run", resume=True) as run,
        pytest.raises(UserError, match=r"its checkpoint lacks history, so an earlier version.*--out"),
    ):
        run.resume({"model": nn.Linear(2, 1), "history": nn.Linear(2, 1)})
