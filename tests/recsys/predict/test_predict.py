"""Predictions of a finished run: the saved model applied by hand, and files that are not as they should be."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from harness import cli
from harness.errors import UserError
from recsys.data import load_clicks
from recsys.models.click_models import build_model
from recsys.predict.__main__ import Config, main
from recsys.predict.file import predict_file
from recsys.predict.saved import load_run
from tests.recsys.raw_logs import raw_rows, read_rows, write_rows
from tests.recsys.runs import main as train
from tests.recsys.runs import options as train_options

ROOT = Path(__file__).resolve().parents[3]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """400 raw rows."""
    return write_rows(tmp_path_factory.mktemp("log") / "train.txt", raw_rows(400, seed=3))


@pytest.fixture(scope="module")
def options(log):
    return {"model": "deepfm", "dataset": "criteo", "criteo_file": log, "min_count": 3, "epochs": 2, "lr": 1e-2}


@pytest.fixture(scope="module")
def run(options, tmp_path_factory):
    """The folder of a run whose best weights are not its last ones."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(train_options(**options, device="cpu", out=folder))
    content = torch.load(folder / "checkpoint.pt", weights_only=True)
    content["state"]["best"]["weights"]["top.bias"] += 0.7
    torch.save(content, folder / "checkpoint.pt")
    return folder


@pytest.fixture
def copy(run, tmp_path):
    """The run, to be damaged."""
    return shutil.copytree(run, tmp_path / "run")


def best_model(run, options, field_dims):
    """The trained model, put together without reading anything but the weights."""
    model = build_model(train_options(**options).preset, field_dims)
    model.load_state_dict(torch.load(run / "checkpoint.pt", weights_only=True)["state"]["best"]["weights"])
    return model.eval()


@torch.no_grad()
def expected_of_test_part(run, log, options):
    """The test part's raw rows, and the model's word on the categories that the run was tested on."""
    data = load_clicks("criteo", criteo_file=log, min_count=3)
    split = torch.utils.data.random_split(range(400), [320, 40, 40], generator=torch.Generator().manual_seed(42))
    rows = read_rows(log)
    model = best_model(run, options, data.field_dims)
    return [rows[row] for row in sorted(split[2].indices)], model(data.test.fields).sigmoid().squeeze(1)


def command(capsys, *arguments):
    """Exit status, stdout and stderr of ``python -m recsys.predict``."""
    with pytest.raises(SystemExit) as leaving:
        cli.run(Config, main, [str(argument) for argument in arguments])
    said = capsys.readouterr()
    return leaving.value.code, said.out, said.err


def written(path):
    """The file of predictions; None for an empty line."""
    return [float(line) if line else None for line in path.read_text().split("\n")[:-1]]


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("block_bytes", [1 << 25, 900])
def test_probabilities_are_those_of_the_best_model_in_the_order_of_the_rows(
    run, log, options, tmp_path, labelled, block_bytes
):
    rows, chance = expected_of_test_part(run, log, options)
    path = write_rows(tmp_path / "new.txt", rows if labelled else [row[1:] for row in rows])
    model, encoder, settings = load_run(run, CPU)
    found = predict_file(model, encoder, path, tmp_path / "p.csv", CPU, block_bytes=block_bytes)
    assert (found.rows, found.malformed) == (40, 0)
    assert written(tmp_path / "p.csv") == pytest.approx(chance.tolist(), rel=1e-5)
    assert (settings["model"], settings["dataset"], settings["min_count"]) == ("deepfm", "criteo", 3)


def test_the_command_writes_predictions_and_says_what_it_found(run, log, options, tmp_path):
    rows, chance = expected_of_test_part(run, log, options)
    path, out = write_rows(tmp_path / "new.txt", rows), tmp_path / "a" / "p.csv"
    arguments = [sys.executable, "-m", "recsys.predict", str(run), str(path), "--out", str(out), "--device", "cpu"]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"rows": 40, "malformed": 0, "out": str(out)}
    assert done.stderr == ""
    assert written(out) == pytest.approx(chance.tolist(), rel=1e-5)
    assert [path.name for path in out.parent.iterdir()] == ["p.csv"]


@torch.no_grad()
def test_an_unseen_category_counts_as_a_rare_one_and_an_empty_column_as_missing(run, log, options, tmp_path):
    data = load_clicks("criteo", criteo_file=log, min_count=3)
    model = best_model(run, options, data.field_dims)
    write_rows(tmp_path / "new.txt", [["7777777"] * 13 + ["never seen"] * 26, [""] * 39])
    predict_file(*load_run(run, CPU)[:2], tmp_path / "new.txt", tmp_path / "p.csv", CPU)

    rows = read_rows(log)
    missing = []  # the ids that rows with an empty column got
    parts = torch.utils.data.random_split(range(400), [320, 40, 40], generator=torch.Generator().manual_seed(42))
    train_rows = sorted(parts[0].indices)
    for field in range(39):
        place = next(place for place, row in enumerate(train_rows) if rows[row][1 + field] == "")
        missing.append(int(data.train.fields[place, field]))
    ids = torch.tensor([[0] * 39, missing], dtype=torch.int32)
    assert written(tmp_path / "p.csv") == pytest.approx(model(ids).sigmoid().squeeze(1).tolist(), rel=1e-5)
    assert missing != [0] * 39


def test_a_short_row_is_an_error_with_file_and_line_and_leaves_the_old_predictions(run, log, tmp_path, capsys):
    rows = read_rows(log)[:6]
    rows[3] = rows[3][:-2]
    path, out = write_rows(tmp_path / "new.txt", rows), tmp_path / "p.csv"
    out.write_text("old")
    status, stdout, said = command(capsys, run, path, "--out", out)
    assert (status, stdout) == (2, "")
    assert f"{path}, line 4: 38 columns instead of 40. Each line should hold 39 fields" in said
    assert out.read_text() == "old"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["new.txt", "p.csv"]


def test_skipped_rows_leave_empty_lines_and_are_counted(run, log, tmp_path, capsys):
    rows = read_rows(log)[:30]
    whole = write_rows(tmp_path / "whole.txt", rows)
    rows[0], rows[7] = rows[0][:-2], [*rows[7][:3], "many", *rows[7][4:]]
    path, out = write_rows(tmp_path / "new.txt", rows), tmp_path / "p.csv"
    command(capsys, run, whole, "--out", tmp_path / "whole.csv")
    status, stdout, said = command(capsys, run, path, "--out", out, "--skip-malformed")
    assert status == 0
    assert json.loads(stdout) == {"rows": 30, "malformed": 2, "out": str(out)}
    assert "2 of 30 rows are malformed (line 1: 38 columns instead of 40; line 8: I3 is 'many'" in said
    found, all_rows = written(out), written(tmp_path / "whole.csv")
    assert [row for row, chance in enumerate(found) if chance is None] == [0, 7]
    expected = [chance for row, chance in enumerate(all_rows) if row not in (0, 7)]
    # Not to the last bit: a product of 28 rows may be summed in another order than one of 30.
    assert [chance for chance in found if chance is not None] == pytest.approx(expected, rel=1e-5)


def test_a_file_of_another_format_is_an_error_even_if_rows_may_be_skipped(run, tmp_path, capsys):
    path = tmp_path / "other.csv"
    path.write_text("age,income\n39,<=50K\n50,>50K\n")
    for arguments, message in (
        ([], "line 1: 1 columns instead of 40"),
        (["--skip-malformed"], "other.csv has 3 rows, all malformed"),
    ):
        status, _, said = command(capsys, run, path, "--out", tmp_path / "p.csv", *arguments)
        assert status == 2
        assert message in said
        assert "separated by '\\t'" in said
    assert [each.name for each in tmp_path.iterdir()] == ["other.csv"]


@pytest.mark.parametrize("name", ["rows.txt", "folder", "pipe"])
def test_predictions_overwrite_nothing_but_plain_files_and_not_the_rows(run, log, tmp_path, capsys, name):
    shutil.copy(log, tmp_path / "rows.txt")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    status, _, said = command(capsys, run, tmp_path / "rows.txt", "--out", tmp_path / name)
    assert status == 2
    assert "Name another file" in said
    assert (tmp_path / "rows.txt").read_bytes() == log.read_bytes()


def remove(name):
    return lambda folder: (folder / name).unlink()


def cut(name):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-100])


def replaced(name, before, after):
    return lambda folder: (folder / name).write_text((folder / name).read_text().replace(before, after))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "there is no run"),
        (remove("config.yaml"), "there is no run"),
        (remove("result.json"), "not finished. Continue it with --resume"),
        (remove("checkpoint.pt"), "its checkpoint.pt is missing"),
        (remove("encoder.json"), "encoder.json is missing or damaged"),
        (cut("checkpoint.pt"), "checkpoint.pt is damaged"),
        (cut("encoder.json"), "encoder.json is missing or damaged"),
        (replaced("config.yaml", "model: deepfm", "model: gcn"), "not of a click model"),
        (replaced("config.yaml", "embed: 10", "embed: 11"), "checkpoint.pt does not belong to the config.yaml"),
        (replaced("config.yaml", "method: dfa", "method: dfx"), "config.yaml is not what a run writes (--method dfx"),
        (replaced("config.yaml", "heads: 2", "heads: 3"), "config.yaml is not what a run writes (attention is 32 wide"),
        (replaced("config.yaml", "model: deepfm", "model: [deepfm"), "config.yaml cannot be read"),
    ],
)
def test_a_folder_without_a_whole_run_is_named_with_the_reason(copy, log, tmp_path, capsys, damage, message):
    damage(copy)
    status, stdout, said = command(capsys, copy, log, "--out", tmp_path / "p.csv")
    assert (status, stdout) == (2, "")
    assert re.search(f"^error: {re.escape(str(copy))}.*{re.escape(message)}", said)
    assert said.count("\n") == 1
    assert not (tmp_path / "p.csv").exists()


class Fussy(torch.nn.Module):
    """A model that returns NaN where the last field is rare."""

    def forward(self, fields):
        return torch.where(fields[:, -1:] == 0, torch.nan, 0.0)


def test_a_row_without_a_number_is_an_error_and_not_an_empty_line(run, log, tmp_path, capsys):
    rows = [[*row[:-1], last] for row, last in zip(read_rows(log), ["", "never seen", ""], strict=False)]
    path = write_rows(tmp_path / "new.txt", rows)
    with pytest.raises(UserError, match=r"new\.txt: the model returns NaN for 1 of the 3 rows after row 0"):
        predict_file(Fussy(), load_run(run, CPU).encoder, path, tmp_path / "p.csv", CPU)
    assert not (tmp_path / "p.csv").exists()
