"""The table behind docs/what-to-try.md: every variant trains, and the table says which rate was best."""

from pathlib import Path

import pytest
import torch

from harness.errors import UserError
from harness.tables import RunContext
from reproduce import execute, progress
from reproduce.advice.__main__ import Config, main, markdown
from reproduce.advice.model import CharacterModel
from reproduce.advice.tables import RATES, VARIANTS, WHAT_TO_TRY, run
from reproduce.execute import Outcome
from reproduce.runs import OUT

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_trains(name):
    [cell] = [cell for cell in WHAT_TO_TRY.cells if cell.key == f"{name}_lr-{RATES[0]:g}"]
    result = run(cell, 0, RunContext(scale="quick"))
    assert 2.0 < result["metrics"]["val_nats"] < 8.0  # about log of the number of characters
    assert result["config"]["variant"]["rule"] == VARIANTS[name].rule


def test_a_norm_after_the_sum_bounds_what_a_block_passes_on():
    x = 100 * torch.randn(2, 5, 64)
    pre, post = (CharacterModel(7, post_norm).blocks[0](x).detach() for post_norm in (False, True))
    assert pre.std() > 50
    assert float(post.std()) == pytest.approx(1.0, abs=0.01)


def test_the_best_rate_of_a_row_is_bold():
    lines = [
        {
            "row": "backpropagation", "preset": f"bp_lr-{rate:g}", "dataset": "synthetic", "method": "bp", "seed": 0,
            "scale": "paper", "result": {"metrics": {"val_nats": value}, "seconds": 1.0},
        }
        for rate, value in zip(RATES, (2.5, 2.25, 2.75, None), strict=True)
    ]  # fmt: skip
    assert "| backpropagation | 2.50 | **2.25** | 2.75 | – |" in markdown(WHAT_TO_TRY, lines)


def test_the_command_keeps_what_is_done(tmp_path, capsys):
    committed = WHAT_TO_TRY.path(ROOT / "results")
    WHAT_TO_TRY.path(tmp_path).parent.mkdir()
    WHAT_TO_TRY.path(tmp_path).write_bytes(committed.read_bytes())
    main(Config(out=tmp_path))
    assert "what-to-try.md" in capsys.readouterr().out
    assert (tmp_path / "advice" / "what-to-try.md").read_text() == committed.with_suffix(".md").read_text()


@pytest.mark.parametrize(("mistakes", "status"), [((True, True), 2), ((True, False), 1)])
def test_runs_that_fail_are_told_in_a_line_after_the_others_are_written(
    mistakes, status, tmp_path, capsys, monkeypatch
):
    jobs = execute.pending(WHAT_TO_TRY, 1, tmp_path, RunContext(scale="quick"))
    failed = [
        Outcome(job, failure="no space left", users_mistake=mistake)
        for job, mistake in zip(jobs, mistakes, strict=False)
    ]
    monkeypatch.setattr(progress, "run_jobs", lambda *args, **options: failed)
    with pytest.raises(SystemExit) as ended:
        main(Config(scale="quick", out=tmp_path))
    assert ended.value.code == status
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert said.err.startswith("FAILED 2 x: no space left (first: ")
    assert WHAT_TO_TRY.path(tmp_path).with_suffix(".md").exists()


def test_a_folder_that_cannot_be_made_is_told_before_anything_runs(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="it is there, and not a folder"):
        main(Config(scale="quick", out=tmp_path / "file"))


def test_runs_go_to_a_folder_of_their_own_unless_told_otherwise():
    assert Config().out == OUT
