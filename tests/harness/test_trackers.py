"""Where the numbers of a run go besides its folder: accelerate's trackers, and the loss beside the bar."""

import io
import json
import sys

import pytest
import rich.console
import torch
from accelerate import PartialState

from harness.errors import UserError
from harness.options import make
from harness.run import Run
from harness.run.progress import Bar
from nlp.config import Config as NlpConfig
from recsys.train import Config as RecsysConfig

WANDB = """
calls = []
class Config:
    def update(self, values, **options):
        calls.append(("config", values))
config = Config()
class Started:
    def log(self, values, step):
        calls.append(("log", step, values))
    def finish(self):
        calls.append(("finish",))
def init(**options):
    calls.append(("init", options))
    return Started()
"""


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    """A package of that name, which writes down how it is called."""
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "wandb.py").write_text(WANDB)
    monkeypatch.syspath_prepend(packages)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    import wandb

    yield wandb
    sys.modules.pop("wandb", None)
    PartialState._reset_state()


def short(folder, **options):
    with Run("task", "name", {"lr": 1}, folder, **options) as run:
        run.log(1, train_loss=0.5, val_auc=torch.tensor(0.75))
        run.log(2, train_loss=0.25)


def test_a_tracker_gets_the_configuration_and_every_number_of_the_run(tmp_path, wandb):
    short(tmp_path / "run", trackers=("tensorboard", "wandb"))
    kinds = [call[0] for call in wandb.calls]
    assert kinds == ["init", "config", "log", "log", "finish"]
    assert wandb.calls[0][1] == {"project": "tinydfa-task", "name": "name", "dir": str(tmp_path / "run")}
    assert wandb.calls[1][1] == {"lr": 1}
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [{"step": step} | values for _, step, values in wandb.calls[2:4]] == lines
    assert list((tmp_path / "run").glob("events.out.tfevents.*"))  # TensorBoard's, as without a tracker


def test_a_run_without_trackers_starts_none(tmp_path, wandb):
    short(tmp_path / "run")
    assert wandb.calls == []


def test_a_tracker_that_cannot_be_started_ends_the_run_before_its_first_step(tmp_path, wandb, monkeypatch):
    def init(**options):
        raise RuntimeError("api_key not\nconfigured")

    monkeypatch.setattr(wandb, "init", init)
    with pytest.raises(UserError, match=r"--tracker wandb cannot be started \(RuntimeError: api_key not configured\)"):
        Run("task", "name", {"lr": 1}, tmp_path / "run", trackers=("wandb",))
    short(tmp_path / "run")  # the folder is not taken


def test_a_tracker_that_fails_later_is_left_out_and_the_run_goes_on(tmp_path, wandb, monkeypatch, capsys):
    def log(self, values, step):
        raise ConnectionError("no route")

    monkeypatch.setattr(wandb.Started, "log", log)
    short(tmp_path / "run", trackers=("wandb",))
    told = "warning: wandb takes no more numbers (ConnectionError: no route); the run goes on without it\n"
    assert capsys.readouterr().err == told
    assert len((tmp_path / "run/metrics.jsonl").read_text().splitlines()) == 2


def test_a_tracker_whose_package_is_absent_is_refused_with_the_options(monkeypatch):
    monkeypatch.setattr("harness.run.metrics.find_spec", lambda name: None if name == "mlflow" else name)
    for config in (NlpConfig, RecsysConfig):
        with pytest.raises(UserError, match=r"--tracker mlflow needs the package mlflow.*pip install mlflow"):
            make(config, tracker=("tensorboard", "mlflow"))
        assert make(config, tracker=("tensorboard", "wandb")).tracker == ("tensorboard", "wandb")


@pytest.fixture
def screen(monkeypatch):
    """A terminal that keeps what is drawn on it."""
    kept = io.StringIO()
    terminal = rich.console.Console(file=kept, force_terminal=True, width=100)
    monkeypatch.setattr("rich.console.Console", lambda **options: terminal)
    return kept


def test_the_bar_shows_steps_and_the_loss_of_one_sample(screen):
    bar = Bar()
    for step in bar.track(range(3), "training"):
        bar.show(torch.tensor(2.0 + step), 4, now=True)
    drawn = screen.getvalue()
    assert "training" in drawn
    assert "2/3" in drawn or "3/3" in drawn
    assert "loss 1" in drawn  # (2 + 2) / 4


class Waited:
    """A loss on a device; counts how often it is waited for."""

    times = 0

    def __float__(self):
        self.times += 1
        return 1.0


def test_the_bar_waits_for_a_device_at_most_once_a_second(screen, monkeypatch):
    seconds, bar, loss = [10.0], Bar(), Waited()
    monkeypatch.setattr("harness.run.progress.monotonic", lambda: seconds[0])
    for _ in bar.track(range(20), "training"):
        bar.show(loss)
        seconds[0] += 0.1
    assert loss.times == 2


def test_no_loss_is_read_where_no_bar_is_drawn():
    bar, loss = Bar(), Waited()
    for _ in bar.track(range(3), "training"):
        bar.show(loss, now=True)
    assert loss.times == 0


def test_a_logged_loss_is_shown(tmp_path, screen):
    with Run("task", "name", {"lr": 1}, tmp_path / "run") as run:
        for step in run.track(range(1, 3), "training"):
            run.log(step, val_auc=0.5, train_loss=0.125 * step)
    assert "loss 0.25" in screen.getvalue()
