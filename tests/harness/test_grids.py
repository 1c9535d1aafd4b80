"""A run of a grid that diverges is a result, and nothing else is made one."""

import json

import pytest

from harness.errors import UserError
from harness.run import check_loss
from harness.tables import Cell, RunContext, Table
from harness.tables.aggregate import summarise
from harness.tables.grids import or_diverged

CELL = Cell(row="FC", column="0.3", method="bp", key="fc_lr-0.3", dataset="digits", metric="val_error")
DIVERGED = Cell(row="FC", column="9", method="bp", key="fc_lr-9", dataset="digits", metric="val_error")
CPU = RunContext(device="cpu")


def run(cell, seed, context):
    check_loss(float("nan") if cell is DIVERGED else 1.0, 7)
    return {"metrics": {cell.metric: 0.25}, "seed": seed}


def test_a_run_that_diverges_has_a_result_without_the_number_and_with_the_reason():
    result = or_diverged("vision", run)(DIVERGED, 3, CPU)
    assert result["metrics"] == {"val_error": None}
    assert (result["task"], result["dataset"], result["method"], result["seed"]) == ("vision", "digits", "bp", 3)
    assert result["config"]["preset"] == "fc_lr-9"
    assert "nan at step 7" in result["config"]["diverged"]
    table = Table(name="t", title="", task="vision", unit="%", cells=(DIVERGED,), source="ours", run=run)
    line = {
        "preset": "fc_lr-9",
        "dataset": "digits",
        "method": "bp",
        "seed": 3,
        "result": json.loads(json.dumps(result)),
    }
    summary = summarise(table, DIVERGED, [line])
    assert (summary.mean, summary.n, summary.failed) == (None, 0, 1)


def test_a_run_that_does_not_diverge_keeps_its_result_and_any_other_mistake_stays_one():
    assert or_diverged("vision", run)(CELL, 3, CPU) == run(CELL, 3, CPU)

    def mistaken(cell, seed, context):
        raise UserError("no such data")

    with pytest.raises(UserError, match="no such data"):
        or_diverged("vision", mistaken)(CELL, 3, CPU)
