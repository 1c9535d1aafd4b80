"""The runs behind docs/learned-feedback.md: settings that differ in one option, and curves of alignment."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from harness.errors import UserError
from harness.methods import rule_of
from harness.tables import RunContext
from harness.tables.results import append, read
from reproduce import execute, progress
from reproduce.execute import Outcome
from reproduce.learned import ablation, alignment
from reproduce.learned.__main__ import Config, ends, main, write
from reproduce.learned.channels import PerChannel
from reproduce.learned.tables import TABLES
from reproduce.runs import OUT
from reproduce.scoreboard.columns import COLUMNS
from reproduce.scoreboard.summary import Score, best_rate
from tests.tinydfa.nets import ConvNet, batch
from tinydfa import attach
from tinydfa.rules import Fitted

ROOT = Path(__file__).parents[2]


def line(cell, seed, value):
    about = {"preset": cell.key, "dataset": cell.dataset, "method": cell.method, "seed": seed, "scale": "paper"}
    return about | {"row": cell.row, "result": {"metrics": {cell.metric: value}, "seconds": 1.0}}


def test_every_row_differs_from_the_first_in_one_option():
    first, *others, together = ablation.variants().values()
    assert together == first | ablation.TOGETHER
    assert rule_of(COLUMNS["cora"].rule("fitted")).options | {"rows": 0} == rule_of(ablation.rule(first)).options
    for options in others:
        assert len(options.items() - first.items()) == 1


def test_a_signal_a_channel_is_the_mean_of_the_fit_over_its_positions():
    net, other = ConvNet().double(), ConvNet().double()
    x, y = batch(6, 2, 8, 8)
    plain = attach(net, Fitted())
    shared = attach(other, PerChannel(channels=((3 * 6 * 6, 3), (2 * 4 * 4, 2))))
    for model in (net, other):
        cross_entropy(model(x.double()), y).backward()
    fits, means = (attachment.effective_feedback().split([108, 32, 5], dim=1) for attachment in (plain, shared))
    assert torch.equal(fits[2], means[2])
    for fit, mean, channels in zip(fits[:2], means[:2], (3, 2), strict=True):
        by_hand = torch.stack([part.mean(dim=1) for part in fit.chunk(channels, dim=1)], dim=1)
        torch.testing.assert_close(mean, by_hand.repeat_interleave(mean.shape[1] // channels, dim=1))


def test_a_row_of_feature_maps_stands_in_the_column_that_has_them():
    row = [cell for cell in ablation.ABLATION.cells if "channels=" in cell.key]
    assert [cell.column for cell in row] == ["lenet-cifar"]
    result = ablation.run(row[0], 0, RunContext(scale="quick"))
    assert 0 < result["metrics"]["test_error"] <= 1


def test_every_column_has_the_rate_that_is_best_for_fitted_on_the_committed_board():
    files = {name: read(ROOT / "results" / "scoreboard" / f"{name}.jsonl") for name in ablation.RATES}
    assert {name: best_rate(COLUMNS[name], "fitted", lines) for name, lines in files.items()} == ablation.RATES


def test_a_cell_says_how_much_of_the_way_a_setting_goes():
    cells = [cell for cell in ablation.ABLATION.cells if cell.column == "cora"]
    lines = [line(cells[0], 0, 0.7), line(cells[0], 1, 0.8), line(cells[1], 0, None)]
    text = ablation.markdown(ablation.ABLATION, lines, {"cora": (Score(mean=0.5, std=0.01), Score(mean=0.9, std=0.01))})
    assert "all rows | 62 % (75.0 ± 7.1, 2) | – | – |" in text
    assert "one exact pass in 10 | – (1 diverged) |" in text


def test_alignment_is_kept_for_every_point_and_drawn(monkeypatch):
    monkeypatch.setattr(alignment, "COLUMN", replace(alignment.COLUMN, dataset="synthetic"))
    cell = alignment.ALIGNMENT.cells[1]
    result = alignment.run(cell, 0, RunContext(scale="quick"))
    curves = result["curves"]
    assert curves["alignment_step"] == [2, 4, 6, 8, 10]
    points = [name for name in curves if name.startswith("alignment ")]
    assert len(points) == 2
    assert all(len(curves[name]) == 5 and all(-1 <= value <= 1 for value in curves[name]) for name in points)
    mean = sum(sum(curves[name]) for name in points) / 10
    assert result["metrics"]["alignment"] == pytest.approx(mean, abs=1e-3)
    drawn = alignment.picture([line(cell, 0, 0.5) | {"result": result}])
    assert drawn.startswith(b"\x89PNG")


def test_a_point_that_receives_its_exact_gradient_has_no_panel():
    curves = {"alignment a": [0.1, 0.2], "alignment b": [1.0, 0.9999]}
    lines = [{"result": {"curves": curves}}, {"result": {"curves": curves | {"alignment a": [1.0, 1.0]}}}]
    assert [alignment.is_exact(point, lines) for point in curves] == [False, True]


def test_the_command_runs_what_is_missing_and_writes_it(tmp_path, capsys):
    config = Config(tables=("fitted-alignment",), scale="quick", seeds=1, jobs=1, out=tmp_path)
    main(config)
    text = (tmp_path / "learned" / "fitted-alignment.md").read_text()
    assert "| fixed and random | DFA |" in text
    assert (tmp_path / "learned" / "fitted-alignment.png").exists()
    before = (tmp_path / "learned" / "fitted-alignment.jsonl").read_bytes()
    main(config)
    assert (tmp_path / "learned" / "fitted-alignment.jsonl").read_bytes() == before


def test_a_table_that_is_not_there_is_answered_with_those_there_are():
    with pytest.raises(UserError, match="fitted-ablation"):
        main(Config(tables=("ablation",)))


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_the_committed_table_is_that_of_the_committed_runs(table, tmp_path):
    folder = tmp_path / "results"
    shutil.copytree(ROOT / "results" / "scoreboard", folder / "scoreboard")
    shutil.copytree(ROOT / "results" / "learned", folder / "learned")
    path = write(table.name, folder, "paper")
    assert path.read_text() == table.path(ROOT / "results").with_suffix(".md").read_text()


@pytest.mark.parametrize(("mistakes", "status"), [((True, True), 2), ((True, False), 1)])
def test_runs_that_fail_are_told_in_a_line_after_the_others_are_written(
    mistakes, status, tmp_path, capsys, monkeypatch
):
    jobs = execute.pending(alignment.ALIGNMENT, 1, tmp_path, RunContext(scale="quick"))
    failed = [
        Outcome(job, failure="no space left", users_mistake=mistake)
        for job, mistake in zip(jobs, mistakes, strict=False)
    ]
    monkeypatch.setattr(progress, "run_jobs", lambda *args, **options: failed)
    with pytest.raises(SystemExit) as ended:
        main(Config(tables=("fitted-alignment",), scale="quick", out=tmp_path))
    assert ended.value.code == status
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert said.err.startswith("FAILED 2 x: no space left (first: ")
    assert alignment.ALIGNMENT.path(tmp_path).with_suffix(".md").exists()


def test_a_folder_that_cannot_be_made_is_told_before_anything_runs(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="it is there, and not a folder"):
        main(Config(scale="quick", out=tmp_path / "file"))


def test_runs_go_to_a_folder_of_their_own_unless_told_otherwise():
    assert Config().out == OUT


def test_a_board_of_yours_without_one_end_of_the_way_does_not_hide_ours(tmp_path):
    lines = read(ROOT / "results" / "scoreboard" / "cora.jsonl")
    (tmp_path / "scoreboard").mkdir()
    for line in lines:
        if line["method"] == "shallow":
            append(tmp_path / "scoreboard" / "cora.jsonl", line)
    assert ends(tmp_path, "paper") == ends(ROOT / "results", "paper")
