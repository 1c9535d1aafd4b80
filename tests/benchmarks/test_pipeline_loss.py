"""The study of loss by wall clock on two stages: it trains once, goes on where it was, and draws."""

import json
import os

import pytest
from torch import distributed

from benchmarks.pipeline_loss import Config, main, reached, report, study
from harness.errors import UserError
from tests.nlp.tiny import tiny_corpus
from tests.processes import in_two_processes


def studied(rank, folder):
    os.environ["WORLD_SIZE"] = "2"  # as torchrun would say
    config = Config(
        quick=True, steps=6, validate_every=2, runs=folder / "runs", out=folder / "a.json", figure=folder / "a.png"
    )
    rows, curves = study(config, tiny_corpus())
    distributed.barrier()
    written = {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("result.json")}
    assert len(written) == 3
    again = study(config, tiny_corpus())
    distributed.barrier()
    assert written == {path: path.stat().st_mtime_ns for path in written}  # nothing is trained again
    if rank == 0:  # whose results were written
        assert again == (rows, curves)
        report(config, rows, curves)


@pytest.mark.slow
def test_three_methods_are_trained_for_the_same_steps_and_drawn(tmp_path):
    in_two_processes(studied, tmp_path)
    found = json.loads((tmp_path / "a.json").read_text())
    assert [(row["method"], row["schedule"], row["steps"]) for row in found["rows"]] == [
        ("BP", "1F1B", 6),
        ("DFA", "DFA, overlapped", 6),
        ("Fitted", "DFA, overlapped", 6),
    ]
    for curve in found["curves"].values():
        assert curve["step"] == [2, 4, 6]
        assert curve["seconds"][2] == pytest.approx(3 * curve["seconds"][0])
    assert (tmp_path / "a.md").is_file()
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_a_loss_is_reached_between_two_validations_or_never():
    assert reached([4.0, 2.0], [10.0, 30.0], 3.0) == 20.0
    assert reached([4.0, 2.0], [10.0, 30.0], 4.5) == 10.0
    assert reached([4.0, 5.0], [10.0, 30.0], 3.0) is None


def test_what_cannot_be_compared_is_refused(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(UserError, match="torchrun --nproc-per-node 2"):
        main(Config())
    with pytest.raises(UserError, match="has no bp, to which the others are compared"):
        Config(methods=("dfa",))
    with pytest.raises(UserError, match="--validate-every 0: give at least 1"):
        Config(validate_every=0)
