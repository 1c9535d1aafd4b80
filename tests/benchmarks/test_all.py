"""`python -m benchmarks`: who is in the table, where its ratios come from, what it says of peers that are absent."""

import json
import sys

import pytest

from benchmarks import __main__ as everything
from benchmarks import contest as contests
from benchmarks.contest import Contest, measure, not_measured
from benchmarks.peers import process
from harness import cli

QUICK = ["--quick", "--rounds", "1", "--threads", "1"]
SMALL_NETS = ["bp", "shallow", "dfa", "drtp", "fa"]
CONTESTANTS = {
    "core": SMALL_NETS,
    "vision": SMALL_NETS * 2,
    "graphs": ["bp", "shallow", "dfa"],
    "recsys": ["bp", "shallow", "dfa"] * 2,
    "nlp": ["bp", "shallow", "dfa, macro", "dfa, micro"],
    "nerf": ["bp", "shallow", "dfa"],
    "torchfm": ["torchfm", "torchfm, fused", "bp"] * 5,
    "pyg": ["PyG example", "bp", "dfa"],
    "torch": ["plain torch", "bp"],
}

BIOTORCH = """
from torch import nn

class BioModule(nn.Module):
    def __init__(self, module, mode, output_dim):
        super().__init__()
        print("converted")
        self.module = module

    def forward(self, x, targets=None, loss_function=None):
        return self.module(x)
"""


def run(tmp_path, *arguments) -> tuple[int, list[dict]]:
    """Exit status of the command, and its rows."""
    out = tmp_path / "new" / "all.json"
    with pytest.raises(SystemExit) as left:
        cli.run(everything.Config, everything.main, [*QUICK, *arguments, "--out", str(out)])
    return left.value.code, json.loads(out.read_text())["rows"] if out.exists() else []


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A folder in place of the one that peers are installed in."""
    monkeypatch.setattr(process, "INSTALLED", tmp_path / "peers")
    return tmp_path / "peers"


@pytest.mark.parametrize("part", CONTESTANTS)
def test_a_part_has_a_row_for_every_contestant(part, tmp_path, capsys):
    status, rows = run(tmp_path, "--parts", part)
    assert status == 0
    assert [row["contestant"] for row in rows] == CONTESTANTS[part]
    assert all(row["ms a step"] > 0 and row["ratio to BP"] > 0 and row["peak MiB"] >= 0 for row in rows)
    assert all(row["ratio to BP"] == 1 for row in rows if row["contestant"] == "bp")
    assert not any(row["note"] for row in rows)


def test_only_peers_have_a_ratio_to_peer_and_only_broadcasting_methods_a_limit(tmp_path, capsys):
    _, rows = run(tmp_path, "--parts", "core", "torchfm")
    assert {row["contestant"] for row in rows if row["limit"] is not None} == {"dfa", "drtp"}
    assert [row["contestant"] for row in rows if row["ratio to peer"] is not None] == ["bp"] * 5


def test_parts_are_those_of_the_tasks_and_of_the_peers():
    assert set(everything.PARTS) == {*CONTESTANTS, "deepctr", "biotorch"}
    assert everything.PARTS[-1] == "nerf"


def test_ratios_are_those_within_the_rounds_of_one_run(monkeypatch):
    runs = []

    def measured(steps, rounds, warm_up, device):
        runs.append((set(steps), rounds))
        return {"bp": [1.0, 10.0, 100.0], "dfa": [0.5, 8.0, 70.0], "peer": [2.0, 16.0, 700.0]}

    monkeypatch.setattr(contests, "interleave", measured)
    steps = dict.fromkeys(("bp", "dfa", "peer"), lambda: None)
    rows = measure(Contest(task="t", model="m", steps=steps, peers={"dfa": "peer"}, repeats=4), rounds=3)
    assert runs == [({"bp", "dfa", "peer"}, 12)]
    assert [row["ratio to BP"] for row in rows] == [1.0, 0.7, 2.0]  # medians of 0.5, 0.8, 0.7 and of 2, 1.6, 7
    assert [row["ratio to peer"] for row in rows] == [None, 0.25, None]  # of 0.25, 0.5, 0.1
    assert [row["ms a step"] for row in rows] == [10000.0, 8000.0, 16000.0]


def test_rows_with_and_without_numbers_have_the_same_columns():
    (row,) = measure(Contest(task="t", model="m", steps={"bp": lambda: None}), rounds=1)
    assert list(row) == list(not_measured("t", "peer", "it was\nnot there"))
    assert not_measured("t", "peer", "it was\nnot there")["note"] == "not measured: it was not there"


def test_a_peer_that_is_not_installed_has_a_row_that_says_so(tmp_path, capsys, installed):
    status, rows = run(tmp_path, "--parts", "biotorch", "deepctr")
    assert status == 0
    assert [(row["task"], row["contestant"], row["ms a step"]) for row in rows] == [
        ("recsys", "deepctr", None),
        ("core", "biotorch", None),
    ]
    assert "biotorch is not installed; `python -m benchmarks.peers.install biotorch`" in rows[1]["note"]


@pytest.mark.parametrize("part", ["torchfm", "pyg"])
def test_a_package_that_is_missing_has_a_row_that_says_so(part, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchfm.model.afi", None)
    monkeypatch.setitem(sys.modules, "benchmarks.graphs_gcn", None)
    status, rows = run(tmp_path, "--parts", part)
    assert status == 0
    assert [row["contestant"] for row in rows] == [part]
    assert rows[0]["note"].startswith("not measured: ModuleNotFoundError")


def test_a_peer_that_fails_in_its_process_has_a_row_that_says_why(tmp_path, capsys, installed):
    (installed / "biotorch").mkdir(parents=True)
    status, rows = run(tmp_path, "--parts", "biotorch")
    assert status == 0
    assert [row["contestant"] for row in rows] == ["biotorch"]
    assert rows[0]["note"].startswith("not measured: biotorch failed: ModuleNotFoundError")


def test_a_peer_in_its_process_is_measured_with_us_in_one_table(tmp_path, capsys, installed):
    package = installed / "biotorch" / "biotorch" / "module"
    package.mkdir(parents=True)
    (package / "biomodule.py").write_text(BIOTORCH)
    status, rows = run(tmp_path, "--parts", "biotorch")
    assert status == 0
    names = ["bp", "biotorch, fa", "tinydfa, fa", "biotorch, dfa", "tinydfa, dfa"]
    assert [row["contestant"] for row in rows] == names * 2
    assert [row["contestant"] for row in rows[:5] if row["ratio to peer"]] == ["tinydfa, fa", "tinydfa, dfa"]
    assert not any(row["note"] for row in rows)


def test_a_peers_folder_replaces_nothing_of_ours(installed):
    assert process.environment("deepctr")["PYTHONPATH"].endswith(str(installed / "deepctr"))


@pytest.mark.parametrize("wrong", [["--parts", "teapot"], ["--parts"], ["--rounds", "0"], ["--threads", "0"]])
def test_what_cannot_be_measured_is_refused(wrong, capsys):
    with pytest.raises(SystemExit) as left:
        cli.run(everything.Config, everything.main, ["--quick", *wrong])
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_place_that_cannot_be_written_is_named_before_anything_is_measured(tmp_path, capsys, monkeypatch):
    (tmp_path / "new").write_text("a file")
    monkeypatch.setattr(everything, "rows_of", lambda *_: pytest.fail("measured"))
    with pytest.raises(SystemExit) as left:
        cli.run(everything.Config, everything.main, [*QUICK, "--out", str(tmp_path / "new" / "all.json")])
    assert left.value.code == 2
    assert "cannot write" in capsys.readouterr().err
