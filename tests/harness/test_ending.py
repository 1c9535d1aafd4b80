"""What a training prints last."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.run import Run


@dataclass
class Config:
    lr: float = 0.1
    device: str = "cpu"


def test_the_last_line_is_the_result_without_curves_and_configuration_and_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    with Run("task", "name", Config(), tmp_path / "run") as run:
        curves = {"loss": [0.5] * 1000}
        result = run.finish(model="m", dataset="d", method="dfa", seed=4, metrics={"accuracy": 0.5}, curves=curves)
    lines = capsys.readouterr().out.splitlines()
    expected = {name: value for name, value in result.items() if name not in ("curves", "config")}
    assert json.loads(lines[-1]) == expected | {"folder": str(tmp_path / "run")}
    assert lines[0] == "m on d by dfa, seed 4: accuracy 0.5"
    assert str(tmp_path / "run") in lines[1]
    assert lines[2] == f"curves: tensorboard --logdir {tmp_path / 'run'}"


def test_the_last_line_never_exceeds_a_thousand_bytes(tmp_path: Path, capsys: pytest.CaptureFixture):
    with Run("task", "name", Config(), tmp_path / "run") as run:
        metrics = {f"alignment of the point number {number}": number / 7 for number in range(100)}
        run.finish(model="m", dataset="d", method="dfa", seed=4, metrics=metrics)
    last = capsys.readouterr().out.splitlines()[-1]
    assert len(last.encode()) <= 1000
    shown = json.loads(last)["metrics"]
    assert shown == dict(list(metrics.items())[: len(shown)])
    assert len(shown) > 5
