"""What a run folder refuses, and what it keeps when the disk fails."""

import importlib.metadata
import json
import shutil
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from harness.errors import UserError
from harness.run import Run
from harness.tables.results import versions
from tests.harness.started import Config, started


def test_without_resume_nothing_is_restored(tmp_path: Path):
    assert Run("task", "name", Config(), tmp_path / "run").restore() is None


def test_a_taken_folder_is_refused_with_both_ways_out(tmp_path: Path):
    started(tmp_path / "run")
    with pytest.raises(UserError, match=r"run holds a run that was started.*--resume.*--out"):
        Run("task", "name", Config(), tmp_path / "run")
    (tmp_path / "run" / "result.json").write_text("{}")
    with pytest.raises(UserError, match="holds a finished run"):
        Run("task", "name", Config(), tmp_path / "run")


def test_a_run_that_ended_before_its_first_number_does_not_take_the_folder(tmp_path: Path):
    Run("task", "name", Config(), tmp_path / "run")  # its data was not there, say
    Run("task", "name", Config(lr=0.2), tmp_path / "run")
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["lr"] == 0.2


def test_another_configuration_is_not_resumed(tmp_path: Path):
    started(tmp_path / "run")
    with pytest.raises(UserError, match=r"another configuration \(lr: 0.1 -> 0.2\)"):
        Run("task", "name", Config(lr=0.2), tmp_path / "run", resume=True)
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["lr"] == 0.1
    Run("task", "name", Config(device="auto"), tmp_path / "run", resume=True)  # where, not what


@pytest.mark.parametrize(
    "content",
    [
        b"lr: [0.1",
        b"lr: 0.1\n- 3",
        b"",
        b"5",
        b"text",
        b"[lr, out]",
        b"1: 2",
        b"lr: 2020-99-99",
        b"\xff\xfe\xff",
        pytest.param(b"[" * 5000, id="deep"),
    ],
)
def test_a_damaged_configuration_is_named_with_the_way_out(tmp_path: Path, content: bytes):
    started(tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_bytes(content)
    with pytest.raises(
        UserError, match=r"run/config\.yaml (cannot be read|is not the config).*Start over with --out\."
    ):
        Run("task", "name", Config(), tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "config.yaml").read_bytes() == content


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file/run: Not a directory.*--out"):
        Run("task", "name", Config(), tmp_path / "file" / "run")


def test_a_file_or_a_device_is_no_folder_for_a_run(tmp_path: Path):
    (tmp_path / "file").write_text("kept")
    for path in (tmp_path / "file", Path("/dev/null")):
        with pytest.raises(UserError, match=r"cannot write .*: it is there, and not a folder\. Choose another.*--out"):
            Run("task", "name", Config(), path)
    assert (tmp_path / "file").read_text() == "kept"


def test_a_folder_that_vanishes_is_named_when_saving(tmp_path: Path):
    run = started(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(UserError, match=r"cannot write .*run.*No such file"):
        run.save(2)


def test_a_full_disk_is_named_when_logging(small_disk: Path):
    run = Run("task", "name", Config(), small_disk / "run")
    run.save(0)
    with pytest.raises(UserError, match=r"metrics\.jsonl: No space left on device.*--resume"):
        run.log(1, **{f"number_{index}": 0.5 for index in range(10**5)})
    assert (small_disk / "run" / "checkpoint.pt").exists()


def test_a_result_is_json_in_the_folder_and_returned(tmp_path: Path):
    with Run("task", "name", Config(), tmp_path / "run") as run:
        metrics = {"accuracy": torch.tensor(0.5), "loss": float("nan"), "count": np.int64(3)}
        returned = run.finish(model="m", dataset="d", method="dfa", seed=4, metrics=metrics)
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == returned
    assert returned["metrics"] == {"accuracy": 0.5, "loss": None, "count": 3}
    about = {"task", "model", "dataset", "method", "seed", "metrics", "seconds"}
    assert set(returned) == about | {"config", "versions", "commit", "device"}
    assert returned["config"] == {"lr": 0.1, "out": None, "resume": False, "device": "cpu"}
    assert returned["device"].startswith("cpu")


def test_a_result_names_data_method_and_seed_of_the_configuration(tmp_path: Path):
    settings = {"dataset": "cora", "method": "dfa", "seed": 3, "lr": 0.1}
    with Run("task", "name", settings, tmp_path / "run") as run:
        result = run.finish(model="m", metrics={"accuracy": 0.5}, device="cpu")
    assert [result[name] for name in ("dataset", "method", "seed")] == ["cora", "dfa", 3]


def test_versions_are_those_of_the_packages_that_were_used(monkeypatch: pytest.MonkeyPatch):
    for package in ("polars", "tokenizers", "torchmetrics"):
        monkeypatch.delitem(sys.modules, package, raising=False)
        assert package not in versions()
        monkeypatch.setitem(sys.modules, package, None)
        assert versions()[package] == importlib.metadata.version(package)


@pytest.mark.parametrize("value", ["0.5", None, 1j, torch.ones(2), np.ones(2), 10**400], ids=repr)
def test_what_is_no_number_is_named_and_no_line_of_it_is_written(tmp_path: Path, value: object):
    with Run("task", "name", Config(), tmp_path / "run") as run, pytest.raises(TypeError, match=r"accuracy is .*float"):
        run.log(1, train_loss=0.5, accuracy=value)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_numbers_of_numpy_and_torch_are_logged_as_numbers(tmp_path: Path):
    with Run("task", "name", Config(), tmp_path / "run") as run:
        run.log(1, a=np.float32(0.5), b=np.array(2), c=torch.tensor(3.0), d=True)
    assert json.loads((tmp_path / "run" / "metrics.jsonl").read_text()) == {"step": 1, "a": 0.5, "b": 2, "c": 3, "d": 1}


def test_tensorboard_events_lie_beside_the_metrics(tmp_path: Path):
    started(tmp_path / "run")
    assert list((tmp_path / "run").glob("events.out.tfevents.*"))


def test_an_interrupted_run_says_where_a_resume_begins(tmp_path: Path, capsys: pytest.CaptureFixture):
    def interrupted(step: int, resume: bool = False) -> str:
        run = Run("task", "name", Config(), tmp_path / "run", resume)
        with suppress(KeyboardInterrupt), run:
            run.restore()
            run.log(step, loss=1.0)
            if step > 1:
                run.save(step)
            raise KeyboardInterrupt
        return capsys.readouterr().err

    assert interrupted(1) == f"{tmp_path}/run: --resume goes on from the beginning, as it has no checkpoint yet\n"
    assert interrupted(2, resume=True) == f"{tmp_path}/run: --resume goes on from its last checkpoint\n"
