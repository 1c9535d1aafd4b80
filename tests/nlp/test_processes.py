"""Two processes train one model as one process does with the same batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from harness.errors import UserError
from harness.options import parse
from harness.processes import Processes
from nlp.config import Config
from nlp.train import load, train
from tests.float64 import float64
from tests.processes import RULES, assert_trained_as_one, curves_of_two

ROOT = Path(__file__).resolve().parents[2]
SIZES = ["--layers", "2", "--d-model", "16", "--d-ff", "24", "--heads", "2", "--chunk", "16", "--batch", "5"]
LENGTH = ["--steps", "12", "--validate-every", "6", "--vocabulary", "char", "--dropout", "0", "--device", "cpu"]


def options_of(rule, text):
    return parse(Config, ["--text-dir", str(text), "--granularity", "micro", "--method", rule, *SIZES, *LENGTH])


def curves(rule):
    return train(options_of(rule, os.environ["TEXT"]))["curves"]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A small text of one's own: the processes should not wait for a large one."""
    folder = tmp_path_factory.mktemp("text")
    for split, lines in (("train", 60), ("valid", 6), ("test", 6)):
        (folder / f"{split}.txt").write_text("".join(f"the line {n * n} follows {n}\n" for n in range(lines)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEXT", str(folder))
        patch.setenv("TINYDFA_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield folder


@pytest.fixture(scope="module")
def two(text, tmp_path_factory):
    return curves_of_two(curves, RULES, tmp_path_factory.mktemp("two"))


@pytest.mark.parametrize("rule", RULES)
def test_two_processes_train_by_every_rule_as_one_does(rule, two):
    assert_trained_as_one(rule, two, curves)


def test_a_threshold_that_is_the_mean_of_a_batch_is_refused_where_processes_share_it(text, monkeypatch):
    load(options_of("tdfa", text))
    monkeypatch.setattr("harness.processes.current", lambda: Processes(0, 2))
    with pytest.raises(UserError, match=r"--method tdfa makes something else.*2 processes.*tdfa\(threshold=0.001\)"):
        load(options_of("tdfa", text))


def test_two_processes_started_by_accelerate_train_as_one_does(text, tmp_path, monkeypatch):
    monkeypatch.setenv("TINYDFA_CACHE", str(tmp_path))
    options = ["--text-dir", str(text), "--granularity", "micro", "--method", "dfa", "--alignment-every", "6"]
    options += [*SIZES, *LENGTH]
    with float64():
        one = train(parse(Config, options))
    launcher = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--num_processes", "2"]
    command = [*launcher, "-m", "tests.float64", "nlp.train", *options, "--out", str(tmp_path / "two")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}  # the same instruction set as here
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
