"""Two processes train one scene as one process does with the same rays."""

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
from nerf.config import Config
from nerf.step import check_share
from nerf.train import train
from tests.float64 import float64
from tests.processes import RULES, assert_trained_as_one, curves_of_two

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = ["--preset", "debug_dfa", "--size", "10", "--width", "16", "--samples-coarse", "4", "--samples-fine", "4"]
OPTIONS += ["--rays", "15", "--chunk", "6", "--steps", "6", "--log-every", "2", "--checkpoint-every", "4"]
OPTIONS += ["--val-views", "1", "--skip-empty", "--device", "cpu"]


SMALL = ["--size", "10", "--depth", "2", "--width", "16", "--samples-coarse", "4", "--samples-fine", "4"]
SMALL += ["--rays", "15", "--chunk", "6", "--steps", "4", "--log-every", "2", "--test-views", "1", "--device", "cpu"]
HERE = [rule for rule in RULES if rule not in ("drtp", "les")]  # a point in space has no class


def curves(rule):
    found = train(parse(Config, [*SMALL, "--method", rule]))["curves"]
    return {name: found[name] for name in ("train_psnr", "train_coarse_psnr", "test_psnr")}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return curves_of_two(curves, HERE, tmp_path_factory.mktemp("two"))


@pytest.mark.parametrize("rule", HERE)
def test_two_processes_train_by_every_rule_as_one_does(rule, two):
    assert_trained_as_one(rule, two, curves)


def test_two_processes_started_by_accelerate_train_as_one_does(tmp_path):
    with float64():
        one = train(parse(Config, OPTIONS))
    launcher = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--num_processes", "2"]
    command = [*launcher, "-m", "tests.float64", "nerf.train", *OPTIONS, "--out", str(tmp_path / "two")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}  # the same instruction set as here
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sum(line.startswith("{") for line in done.stdout.splitlines()) == 1  # printed by one of them
    two = json.loads((tmp_path / "two" / "result.json").read_text())  # chunks of 6, 6 and 3 rays, 3 + 3 and 2 + 1
    for name in ("train_psnr", "train_coarse_psnr", "test_psnr"):
        assert two["curves"][name] == pytest.approx(one["curves"][name], rel=1e-9)
    for name in ("test_psnr", "val_psnr"):
        assert two["metrics"][name] == pytest.approx(one["metrics"][name], rel=1e-9)
    assert "processes" not in one
    assert two["processes"] == 2
    state = torch.load(tmp_path / "two" / "checkpoint.pt", weights_only=True)
    assert len(state["generators_of_others"]) == 1


def test_a_chunk_of_fewer_rays_than_processes_is_refused():
    check_share(12, 5, Processes(0, 2))
    with pytest.raises(UserError, match="--rays 11, 5 at once, leave 1 for 2 processes"):
        check_share(11, 5, Processes(0, 2))
    with pytest.raises(UserError, match="--rays 3, 5 at once, leave 3 for 4 processes"):
        check_share(3, 5, Processes(0, 4))
