"""A run that is killed and resumed ends with the numbers of one left alone: real processes, real SIGKILLs.

The processes are forked from one that has loaded torch, as loading it takes longer than all their steps.
"""

import json
import multiprocessing
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from harness import cli
from tests.harness import tiny_training

STEPS = 40
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["torch._dynamo", tiny_training.__name__])  # the former is what an optimizer loads


class Training:
    """A process that trains, and what it prints."""

    def __init__(self, words: Path, *arguments: str) -> None:
        self.words = words
        self.process = FORKS.Process(target=train, args=(self.words, arguments))
        self.process.start()

    def wait(self) -> int | None:
        """Its exit status; minus the signal that ended it."""
        self.process.join(timeout=120)
        return self.process.exitcode

    def send(self, number: signal.Signals) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    @property
    def output(self) -> str:
        return (self.words / "stdout").read_text()

    @property
    def complaint(self) -> str:
        return (self.words / "stderr").read_text()


def train(words: Path, arguments: tuple[str, ...]) -> None:
    """In the process: print into files, as a shell would have it do."""
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(words / name, os.O_CREAT | os.O_WRONLY), descriptor)
    torch.set_num_threads(1)
    cli.run(tiny_training.Config, tiny_training.main, arguments)


def start(folder: Path, *arguments: str) -> Training:
    words = tempfile.mkdtemp(dir=folder.parent)
    return Training(Path(words), "--out", str(folder), "--steps", str(STEPS), *arguments)


def finish(training: Training) -> str:
    assert training.wait() == 0, training.complaint
    return training.output


def kill_when(training: Training, condition: Callable[[], bool], delay: float = 0.0) -> bool:
    """SIGKILL `training` once `condition` holds; False if it ended before."""
    while not condition():
        if not training.process.is_alive():
            return False
        time.sleep(0.0005)
    time.sleep(delay)
    training.process.kill()
    return training.wait() == -signal.SIGKILL


def lines_in(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def outcome(folder: Path) -> tuple[bytes, dict, dict]:
    result = json.loads((folder / "result.json").read_text())
    return (folder / "metrics.jsonl").read_bytes(), result["metrics"], torch.load(folder / "final.pt")


def assert_same(folder: Path, reference: Path) -> None:
    metrics, numbers, parameters = outcome(folder)
    expected_metrics, expected_numbers, expected_parameters = outcome(reference)
    assert metrics == expected_metrics
    assert numbers == expected_numbers
    assert parameters.keys() == expected_parameters.keys()
    assert all(torch.equal(parameters[name], expected_parameters[name]) for name in parameters)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    finish(start(folder))
    assert lines_in(folder) == STEPS + STEPS // 3
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_run_killed_at_random_steps_ends_as_if_left_alone(undisturbed: Path, tmp_path: Path, seed: int):
    draw, folder, kills = random.Random(seed), tmp_path / "run", 0
    while kills < 3:
        target = lines_in(folder) + draw.randint(1, 12)
        process = start(folder, "--resume")
        if not kill_when(process, lambda count=target: lines_in(folder) >= count, draw.random() / 100):
            break
        kills += 1
    assert kills >= 2
    finish(start(folder, "--resume"))
    assert_same(folder, undisturbed)


@pytest.mark.slow
def test_a_run_killed_while_it_writes_a_checkpoint_ends_as_if_left_alone(undisturbed: Path, tmp_path: Path):
    draw, folder = random.Random(3), tmp_path / "run"
    temporary, torn = folder / "checkpoint.pt.tmp", 0
    for _ in range(4):
        process = start(folder, "--resume", "--ballast", "40")
        at_least = draw.randint(1, 3) * 10**7
        if not kill_when(process, lambda size=at_least: temporary.exists() and temporary_size(temporary) >= size):
            break
        torn += temporary.exists()
    assert torn >= 1, "no kill fell into a write: the test did not test"
    finish(start(folder, "--resume", "--ballast", "40"))
    assert not temporary.exists()
    assert_same(folder, undisturbed)


def temporary_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def test_a_finished_run_resumed_reports_the_same_again(undisturbed: Path):
    before = outcome(undisturbed)
    result = json.loads(finish(start(undisturbed, "--resume")).splitlines()[-1])
    assert result["metrics"] == before[1]
    assert outcome(undisturbed)[0] == before[0]


def test_a_second_process_in_the_same_folder_is_refused_and_a_killed_one_keeps_nobody_out(
    undisturbed: Path, tmp_path: Path
):
    folder = tmp_path / "run"
    first = start(folder)
    while lines_in(folder) < 1:
        assert first.process.is_alive()
        time.sleep(0.0005)
    first.send(signal.SIGSTOP)
    try:
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        for arguments in ((), ("--resume",)):
            second = start(folder, *arguments)
            assert second.wait() == 2
            assert second.complaint.startswith(f"error: another process is training in {folder}. ")
            assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    finally:
        first.process.kill()
        first.wait()
    finish(start(folder, "--resume"))
    assert_same(folder, undisturbed)
