"""A run that is killed and resumed ends with the numbers of one left alone: real processes, real SIGKILLs."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
SCRIPT = HERE / "tiny_training.py"
ROOT = HERE.parent.parent
STEPS = 40


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(SCRIPT), "--out", str(folder), "--steps", str(STEPS), *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> str:
    output, complaint = process.communicate(timeout=120)
    assert process.returncode == 0, complaint
    return output


def kill_when(process: subprocess.Popen, condition: Callable[[], bool], delay: float = 0.0) -> bool:
    """SIGKILL `process` once `condition` holds; False if it ended before."""
    while not condition():
        if process.poll() is not None:
            return False
        time.sleep(0.0005)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


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
        assert first.poll() is None
        time.sleep(0.0005)
    first.send_signal(signal.SIGSTOP)
    try:
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        for arguments in ((), ("--resume",)):
            second = start(folder, *arguments)
            _, complaint = second.communicate(timeout=120)
            assert second.returncode == 2
            assert complaint.startswith(f"error: another process is training in {folder}. ")
            assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    finally:
        first.kill()
        first.communicate()
    finish(start(folder, "--resume"))
    assert_same(folder, undisturbed)
