"""Devices by name, and progress bars that stay out of log files."""

import pytest
import torch

from harness.config import BaseConfig
from harness.device import describe_device, pick_device
from harness.errors import UserError
from harness.run import progress
from harness.seeds import generator_states, seed_everything, set_generator_states


def test_auto_is_the_gpu_if_there_is_one():
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "cpu:x", "meta", ""])
def test_a_device_that_is_not_there_is_named_with_what_to_use(name: str):
    with pytest.raises(UserError, match=rf"--device {name}: .*Use .*cpu"):
        pick_device(name)


def test_a_gpu_is_refused_where_torch_sees_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match="torch sees 0 CUDA GPUs"):
        pick_device("cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_is_described_by_its_name():
    assert torch.cuda.get_device_name(0) in describe_device(pick_device("cuda:0"))


def test_a_result_says_how_many_threads_it_had():
    assert describe_device("cpu").startswith("cpu (")
    assert "thread" in describe_device("cpu")


def test_one_seed_sets_every_generator():
    import random

    import numpy as np

    draws = []
    for _ in range(2):
        seed_everything(7)
        draws.append((random.random(), float(np.random.rand()), float(torch.rand(()))))
    assert draws[0] == draws[1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_the_generator_of_a_gpu_goes_on_where_it_was():
    seed_everything(1)
    states = generator_states()
    expected = torch.rand(3, device="cuda")
    seed_everything(2)
    set_generator_states(states)
    assert torch.equal(torch.rand(3, device="cuda"), expected)


def test_progress_passes_every_item_and_is_silent_without_a_terminal(capsys: pytest.CaptureFixture):
    assert list(progress.track(iter([3, 1, 2]), "doing", total=3)) == [3, 1, 2]
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.parametrize("seed", [-1, 2**32, 10**20])
def test_a_seed_that_not_every_generator_takes_is_refused(seed: int):
    with pytest.raises(UserError, match=rf"--seed {seed}: give a number from 0 to 4294967295\."):
        BaseConfig(seed=seed)


def test_the_least_and_the_largest_seed_are_taken():
    for seed in (0, 2**32 - 1):
        seed_everything(BaseConfig(seed=seed).seed)
