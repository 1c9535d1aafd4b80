"""Runs that go on: interrupted, finished or prolonged, they end like runs that were not interrupted."""

import json
import math
from dataclasses import replace

import pytest
import torch
import yaml

from harness.errors import NonFiniteLoss, UserError
from harness.options import parse
from harness.run import Run
from harness.tables.results import plain
from recsys import train as module
from recsys.train import Config, train
from recsys.training import Training
from tests.recsys.runs import main, options
from tests.recsys.small import criteo, scripted, small
from tinydfa import Method


class KilledError(Exception):
    pass


RESUMED = {"deepfm": {"dropout": 0.3}, "dcn": {"sparse_embeddings": True}, "afn": {"method": Method.FRSF}}


@pytest.mark.parametrize("model", RESUMED)
@pytest.mark.parametrize("killed_at", [3, 15])
def test_a_resumed_run_ends_like_an_uninterrupted_one(model, killed_at, tmp_path, monkeypatch, capsys):
    config = small(model=model, checkpoint_batches=4, seed=5, **RESUMED[model])  # 9 or 10 batches an epoch
    whole = train(config)

    step, steps = Training.step, iter(range(100))

    def killed(self, batch):
        if next(steps) == killed_at:
            raise KilledError
        return step(self, batch)

    monkeypatch.setattr(Training, "step", killed)
    with pytest.raises(KilledError):
        main(replace(config, out=tmp_path))
    monkeypatch.setattr(Training, "step", step)
    torch.manual_seed(999)
    main(replace(config, out=tmp_path, resume=True))

    resumed = json.loads((tmp_path / "result.json").read_text())
    assert resumed["metrics"] == pytest.approx(whole["metrics"], abs=0)
    assert resumed["curves"] == whole["curves"]
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 2]
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["metrics"] == resumed["metrics"]


def run_killed_in_validation(config, monkeypatch):
    """Train until the first validation; what `Run.save` was asked to keep, as batches of the epoch that were done."""
    saved, save = [], Run.save

    def noted(self, step, **state):
        saved.append(state["progress"].batch)
        save(self, step, **state)

    def killed(*arguments):
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save", noted)
        patch.setattr(module, "evaluate", killed)
        with pytest.raises(KilledError):
            main(config)
    return saved


@pytest.mark.parametrize(("every", "expected"), [(1, [1]), (2, [])])  # of the two batches of an epoch
def test_within_an_epoch_there_are_checkpoints_only_while_a_batch_is_left(every, expected, tmp_path, monkeypatch):
    config = small(rows=2000, batch=800, checkpoint_batches=every, out=tmp_path)
    assert run_killed_in_validation(config, monkeypatch) == expected


@pytest.mark.parametrize("kept", [1, 2])  # 2: all of the epoch, which is a state that earlier runs have saved
def test_a_run_that_was_interrupted_in_a_validation_ends_like_an_uninterrupted_one(kept, tmp_path, monkeypatch):
    config = small(rows=2000, batch=800, checkpoint_batches=kept, dropout=0.3, alignment_every=1)
    whole = train(config)
    with monkeypatch.context() as patch:
        patch.setattr(module, "batch_count", lambda rows, size: kept + 1)
        assert run_killed_in_validation(replace(config, out=tmp_path), patch) == [kept]
    main(replace(config, out=tmp_path, resume=True))
    resumed = json.loads((tmp_path / "result.json").read_text())
    assert resumed["metrics"] == pytest.approx(whole["metrics"], abs=0)
    assert resumed["curves"] == whole["curves"]


def test_a_finished_run_that_is_resumed_reports_the_same_again(tmp_path, capsys):
    main(small(out=tmp_path, epochs=1))
    first = json.loads((tmp_path / "result.json").read_text())
    main(small(out=tmp_path, epochs=1, resume=True))
    assert json.loads((tmp_path / "result.json").read_text())["metrics"] == first["metrics"]


def test_a_run_is_prolonged_to_what_a_longer_one_ends_with(tmp_path):
    main(small(epochs=1, dropout=0.3, out=tmp_path))
    main(small(epochs=2, dropout=0.3, out=tmp_path, resume=True))
    longer = main(small(epochs=3, dropout=0.3, out=tmp_path, resume=True))  # once more
    whole = train(small(epochs=3, dropout=0.3))
    assert (longer["metrics"], longer["curves"]) == (whole["metrics"], whole["curves"])
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3]


def test_a_run_that_stopped_early_goes_on_with_more_patience(tmp_path, monkeypatch):
    aucs = [0.6, 0.5, 0.7, 0.5]
    scripted(monkeypatch, aucs[:2])
    assert main(small(epochs=4, patience=1, out=tmp_path))["metrics"]["epochs"] == 2
    scripted(monkeypatch, aucs[2:])
    longer = main(small(epochs=4, patience=2, out=tmp_path, resume=True))
    scripted(monkeypatch, aucs)
    whole = train(small(epochs=4, patience=2))
    assert (longer["metrics"]["epochs"], longer["metrics"]["best_epoch"]) == (4, 3)
    assert (longer["metrics"], longer["curves"]) == (whole["metrics"], whole["curves"])


def test_a_run_is_not_shortened(tmp_path):
    main(small(epochs=2, out=tmp_path))
    with pytest.raises(UserError, match="max_epochs: 2 -> 1"):
        main(small(epochs=1, out=tmp_path, resume=True))


@pytest.mark.parametrize(
    "given", [{"model": "dcn", "alignment_every": 2, "min_count": 3}, {"preset": "fm_bp_adult", "dataset": "adult"}]
)
def test_the_settings_of_a_run_are_options_that_give_it_again(given, tmp_path):
    first = options(**given)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(plain(first.settings())))
    again = parse(Config, ["--config", str(path)])
    assert again.settings() == first.settings()
    assert again.preset == first.preset


def test_a_run_is_not_resumed_with_an_alignment_that_it_did_not_measure(tmp_path):
    main(small(epochs=1, out=tmp_path))
    with pytest.raises(UserError, match="alignment"):
        main(small(epochs=1, out=tmp_path, alignment_every=1, resume=True))


def test_a_run_is_not_resumed_with_other_category_ids(two_logs, tmp_path):
    folder = tmp_path / "run"
    first, second = two_logs
    main(criteo(first, folder))
    prints = [criteo(path, folder).load().encoder.fingerprint for path in two_logs]
    encoder = (folder / "encoder.json").read_bytes()
    with pytest.raises(UserError, match=f"--resume: .* encoder {prints[0]}, .* {prints[1]}: .*--criteo-file.*--out"):
        main(criteo(second, folder, resume=True))
    assert (folder / "encoder.json").read_bytes() == encoder


def test_a_run_is_resumed_with_the_same_rows_from_another_place(two_logs, tmp_path):
    folder, moved = tmp_path / "run", tmp_path / "moved.txt"
    main(criteo(two_logs[0], folder))
    first = json.loads((folder / "result.json").read_text())
    two_logs[0].rename(moved)
    main(criteo(moved, folder, resume=True))
    assert json.loads((folder / "result.json").read_text())["metrics"] == first["metrics"]


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    step, steps = Training.step, iter(range(100))
    monkeypatch.setattr(Training, "step", lambda self, batch: step(self, batch) * (math.nan if next(steps) == 6 else 1))
    with pytest.raises(NonFiniteLoss, match="the loss is nan at step 1"):
        main(small(out=tmp_path, checkpoint_batches=4))
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["state"]
    assert state["progress"]["batch"] == 4
    assert all(bool(torch.isfinite(tensor).all()) for tensor in state["model"].values())
    assert not (tmp_path / "result.json").exists()
