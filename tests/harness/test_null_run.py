"""A run that leaves nothing behind."""

from pathlib import Path

import pytest
from torch import nn

from harness.run import NonFiniteLoss, NullRun


def test_a_null_run_returns_the_result_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    net = nn.Linear(2, 1)
    with NullRun("task", {"dataset": "d", "method": "dfa", "seed": 4, "lr": 0.1}) as run:
        assert run.resume({"model": net}) == 0
        for step in run.track(range(1, 3), "steps"):
            run.log(step, train_loss=0.5)
            run.save(step, model=net)
        run.keep("notes.txt", "text")
        run.say("a line")
        result = run.finish(model="m", metrics={"accuracy": 0.5}, device="cpu")
    assert (result["task"], result["dataset"], result["config"]["lr"]) == ("task", "d", 0.1)
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_null_run_refuses_a_loss_that_is_not_finite():
    with pytest.raises(NonFiniteLoss, match=r"the loss is nan at step 2"):
        NullRun("task", {}).log(2, train_loss=float("nan"))
