"""The benchmark of a table's run: which run it takes, and what it keeps of those before."""

import json

import pytest

from benchmarks import run_times
from harness import cli
from harness.tables import results
from reproduce import execute
from reproduce.tasks import discover


@pytest.fixture
def held(tmp_path):
    """A results folder with two runs of the table called linear."""
    table = discover()["linear"]
    for cell, seconds in ((table.cells[0], 1.0), (table.cells[-1], 2.0)):
        line = {"preset": cell.key, "dataset": cell.dataset, "method": cell.method, "seed": 0, "scale": "paper"}
        results.append(table.path(tmp_path / "results"), line | {"result": {"metrics": {}, "seconds": seconds}})
    return tmp_path


def run(folder, *arguments) -> int | str | None:
    """Exit status of the command."""
    places = ["--results", str(folder / "results"), "--out", str(folder / "new" / "times.json")]
    with pytest.raises(SystemExit) as left:
        cli.run(run_times.Config, run_times.main, [*arguments, *places, "--device", "cpu"])
    return left.value.code


def test_the_longest_of_the_held_runs_is_timed_and_rows_of_other_tables_stay(held, monkeypatch):
    monkeypatch.setattr(execute, "execute", lambda jobs, workers: map(execute._work, jobs))  # no process of its own
    cell = discover()["linear"].cells[-1]
    out = held / "new" / "times.json"
    out.parent.mkdir()
    out.write_text(json.dumps({"rows": [{"table": "gap", "seconds": 1.0}, {"table": "linear", "seconds": 9.0}]}))
    monkeypatch.setattr(run_times, "save", lambda path, device, rows: path.write_text(json.dumps({"rows": rows})))
    assert run(held, "--epochs", "3") == 0  # of a table without runs there is none to time
    first, second = json.loads(out.read_text())["rows"]
    assert first == {"table": "gap", "seconds": 1.0}
    assert second.pop("seconds") < 9.0
    name = f"{cell.row} {cell.method} on {cell.dataset}"
    assert second == {"table": "linear", "run": name, "epochs": "3", "runs at a time": 1}


def test_a_failed_run_leaves_status_1_and_its_reason(held, monkeypatch, capsys):
    monkeypatch.setattr(execute, "execute", lambda jobs, workers: [execute.Outcome(job, failure="why") for job in jobs])
    assert run(held) == 1
    assert "why" in capsys.readouterr().err
    assert not (held / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--tables", "table33"], "no table is called 'table33'"), (["--jobs", "0"], "--jobs 0: must be at least 1")],
)
def test_a_mistake_is_named(held, arguments, message, capsys):
    assert run(held, *arguments) == 2
    assert message in capsys.readouterr().err
