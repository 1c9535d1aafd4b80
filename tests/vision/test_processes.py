"""Two processes train one model as one process does with the same batches."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.errors import UserError
from harness.options import make
from tests.float64 import float64
from tests.processes import RULES, in_two_processes
from vision import train, training
from vision.models.build import build_model
from vision.train import Config

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"epochs": 2, "batch": 359, "hidden": (40, 30)}  # shares of 180 and 179, and of the last batch 1 and 0
CASES = {
    "the error": {"method": "dfa", "alignment_every": 2, "hold_out": 0},
    "its signs": {"method": "sdfa"},
    "targets": {"method": "drtp"},
    "an error that is summed": {"preset": "principled_fc_tanh_dfa"},
    "a loss that is summed": {"preset": "iacolippo_bp"},
    "layer by layer": {"method": "usf"},
    "the top alone": {"method": "shallow"},
} | {rule: {"method": rule} for rule in RULES if rule not in ("dfa", "sdfa", "drtp")}


def curves(options):
    return train.train(make(Config, **(SMALL | options)))["curves"]


def train_all(rank, folder):
    reads = []
    load = train.load_data
    train.load_data = lambda *given, **options: reads.append(given) or load(*given, **options)
    with float64():
        found = {name: curves(options) for name, options in CASES.items()}
    (folder / f"{rank}.json").write_text(json.dumps({"curves": found, "reads": len(reads)}))


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    in_two_processes(train_all, folder)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_as_one_does(name, two):
    with float64():
        one = curves(CASES[name])
    found = two[0]["curves"][name]
    assert found.keys() == one.keys()
    for curve, values in one.items():
        assert found[curve] == pytest.approx(values, rel=1e-9), curve


def test_the_first_process_alone_reads_the_data(two):
    assert [process["reads"] for process in two] == [len(CASES), 0]


def test_a_command_that_accelerate_starts_trains_in_all_processes(tmp_path):
    launcher = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--num_processes", "2"]
    words = ["--method", "dfa", "--epochs", "1", "--batch", "359", "--device", "cpu", "--out", str(tmp_path / "two")]
    command = [*launcher, "-m", "tests.float64", "vision.train", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "two" / "result.json").read_text())
    with float64():
        one = train.train(make(Config, method="dfa", epochs=1, batch=359))
    assert result["curves"]["test_loss"] == pytest.approx(one["curves"]["test_loss"], rel=1e-9)
    assert result["processes"] == 2
    assert sum(line.startswith("{") for line in done.stdout.splitlines()) == 1  # printed by one of them


@pytest.mark.parametrize(
    ("preset", "changes", "message"),
    [
        ("drtp_mnist_fc1-500_dfa", {"method": "tdfa"}, "--method tdfa makes something else.*2 processes.*threshold"),
        ("drtp_mnist_fc1-500_dfa", {"batch": 1}, "--batch 1: 2 processes share its samples. Give at least 2"),
        ("principled_fc_batch-norm_dfa", {}, "batch normalisation, whose statistics"),
        ("biotorch_resnet20_dfa", {}, "batch normalisation, whose statistics"),
        ("principled_fc_tanh_dfa", {"drop_last": False}, "keeps a last one that is smaller"),
    ],
)
def test_what_several_processes_cannot_train_as_one_is_refused(preset, changes, message):
    preset = replace(make(Config, preset=preset).preset, **changes)
    with torch.device("meta"):
        model = build_model(preset, (1, 32, 32), 10)
    training.check_processes(preset, model, 1)
    with pytest.raises(UserError, match=message):
        training.check_processes(preset, model, 2)
