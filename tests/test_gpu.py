"""Every task trains, stops and goes on with a GPU, in float32 and, where it has it, in bfloat16."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]
# Some tens of steps each on data that needs no files, and a checkpoint early on.
TASKS = {
    "graphs": "--model gcn --epochs 60 --checkpoint-every 10",
    "recsys": "--model dcn --rows 4000 --epochs 3 --batch 100 --checkpoint-batches 10",
    "nlp": "--preset small_ours --layers 2 --steps 60 --validate-every 20 --checkpoint-every 10",
    "nerf": "--preset small_dfa --steps 60 --size 20 --test-views 2 --checkpoint-every 10",
    "vision": "--model fc --hidden 64 64 --epochs 20 --checkpoint-every 1",
}
PRECISIONS = [(task, precision) for task in TASKS for precision in ("fp32", "bf16")]
PRECISIONS.remove(("graphs", "bf16"))  # sparse products are float32


def command(task: str, out: Path, *options: str) -> list[str]:
    method = () if "--preset" in TASKS[task] else ("--method", "dfa")
    arguments = [*TASKS[task].split(), *method, "--device", "cuda", "--out", str(out), *options]
    return [sys.executable, "-m", f"{task}.train", *arguments]


def result(task: str, out: Path, *options: str) -> dict:
    arguments = command(task, out, *options)
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads((out / "result.json").read_text())


def numbers(metrics: dict) -> dict[str, float]:
    """What does not depend on how fast the machine is."""
    times = ("second", "per_second", "minutes", "mib")
    return {name: value for name, value in metrics.items() if not any(part in name for part in times)}


@pytest.mark.parametrize(("task", "precision"), PRECISIONS)
def test_training_on_a_gpu_ends_with_finite_numbers_and_the_gpus_name(task, precision, tmp_path):
    options = () if task == "graphs" else ("--precision", precision)
    found = result(task, tmp_path / "run", *options)
    assert found["device"] == f"cuda ({torch.cuda.get_device_name()})"
    assert found["metrics"]
    assert all(math.isfinite(value) for value in found["metrics"].values())


@pytest.mark.parametrize("task", TASKS)
def test_a_run_that_is_killed_on_a_gpu_goes_on_where_it_was(task, tmp_path):
    whole, out = result(task, tmp_path / "whole"), tmp_path / "killed"
    with subprocess.Popen(command(task, out), cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not (out / "checkpoint.pt").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL  # it was not done yet
    resumed = result(task, out, "--resume")
    assert resumed["curves"].keys() == whole["curves"].keys()
    assert numbers(resumed["metrics"]) == pytest.approx(numbers(whole["metrics"]), rel=0.05)  # sums in any order
