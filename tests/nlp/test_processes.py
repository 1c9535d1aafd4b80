"""Two processes train one model as one process does with the same batch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from harness.options import parse
from nlp.config import Config
from nlp.train import train
from tests.float64 import float64

ROOT = Path(__file__).resolve().parents[2]
SIZES = ["--layers", "2", "--d-model", "16", "--d-ff", "24", "--heads", "2", "--chunk", "16", "--batch", "5"]
LENGTH = ["--steps", "12", "--validate-every", "6", "--vocabulary", "char", "--dropout", "0", "--device", "cpu"]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A small text of one's own: the processes should not wait for a large one."""
    folder = tmp_path_factory.mktemp("text")
    for split, lines in (("train", 60), ("valid", 6), ("test", 6)):
        (folder / f"{split}.txt").write_text("".join(f"the line {n * n} follows {n}\n" for n in range(lines)))
    return folder


def test_two_processes_started_by_accelerate_train_as_one_does(text, tmp_path, monkeypatch):
    monkeypatch.setenv("TINYDFA_CACHE", str(tmp_path))
    options = ["--text-dir", str(text), "--granularity", "micro", "--method", "dfa", "--alignment-every", "6"]
    options += [*SIZES, *LENGTH]
    with float64():
        one = train(parse(Config, options))
    launcher = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--num_processes", "2"]
    command = [*launcher, "-m", "tests.float64", "nlp.train", *options, "--out", str(tmp_path / "two")]
    environment = {
        "PATH": "/usr/bin:/bin",
        "TINYDFA_CACHE": str(tmp_path),
        "OMP_NUM_THREADS": "1",
        "HOME": str(tmp_path),
    }
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "FutureWarning" not in done.stderr
    assert sum(line.startswith("{") for line in done.stdout.splitlines()) == 1  # printed by one of them
    two = json.loads((tmp_path / "two" / "result.json").read_text())  # rows 3 and 2 of the five
    assert two["curves"].keys() == one["curves"].keys() >= {"train_loss", "val_loss", "alignment blocks.1.point2"}
    for name, curve in one["curves"].items():
        assert two["curves"][name] == pytest.approx(curve, rel=1e-9)
    assert two["metrics"]["test_perplexity"] == pytest.approx(one["metrics"]["test_perplexity"], rel=1e-9)
    assert "processes" not in one
    assert two["processes"] == 2
    state = torch.load(tmp_path / "two" / "checkpoint.pt", weights_only=True)
    assert len(state["generators_of_others"]) == 1
