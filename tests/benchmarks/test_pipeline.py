"""The benchmark of pipelines runs on two processes and ends with a line of JSON."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.pipeline import Config, main, ratio
from harness.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_it_measures_five_schedules_and_draws_them(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    options = ["--quick", "--figure", str(tmp_path / "lines.svg"), "--out", str(tmp_path / "found.json")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "-m", "benchmarks.pipeline", *options],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["stages"], found["microbatches"]) == (2, 4)
    rows = {row["schedule"]: row for row in found["schedules"]}
    assert list(rows) == ["BP, 1F1B", "BP, ZB-H1", "DFA, flush", "DFA, overlapped", "DFA, overlapped, replay"]
    assert rows["DFA, overlapped"]["counting units"] == 0.533  # 8 of 15
    held = {name: [float(size) for size in row["graphs, MiB a stage"].split()] for name, row in rows.items()}
    assert all(sum(held["DFA, overlapped, replay"]) < sum(held[name]) for name in held if "replay" not in name)
    assert all(row["ms a step"] > 0 and row["simulated ms"] > 0 for row in rows.values())
    assert (tmp_path / "lines.svg").stat().st_size > 1000
    assert json.loads((tmp_path / "found.json").read_text())["rows"] == found["schedules"]


def test_a_ratio_is_the_median_of_those_within_a_round():
    assert ratio({"1f1b": [1.0, 10.0, 2.0], "dfa flush": [0.5, 8.0, 1.4]}, "dfa flush") == 0.7


def test_one_process_is_told_how_to_start(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(UserError, match="torchrun --nproc-per-node 2"):
        main(Config())
