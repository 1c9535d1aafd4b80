"""The scoreboard: what its cells say, and a whole board on embedded data."""

import math
import re
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.methods import slug
from harness.tables import RunContext, results
from reproduce import runs
from reproduce.report.board import board
from reproduce.scoreboard import command, page, picture, short, summary
from reproduce.scoreboard.columns import COLUMNS
from reproduce.scoreboard.cost import Paused
from reproduce.scoreboard.tables import ROWS, refusal, table_of

ROOT = Path(__file__).parents[2]
CORA, DOCS = COLUMNS["cora"], COLUMNS["docs-macro"]


def line(column, method, rate, seed, test, val=0.0, **config):
    metrics = {column.metric: test, column.validation: val}
    about = {
        "table": column.name,
        "preset": f"{column.name}_lr-{rate:g}",
        "dataset": column.dataset,
        "method": method,
        "seed": seed,
    }
    return about | {"scale": "paper", "row": method, "result": {"metrics": metrics, "config": config, "seconds": 1.0}}


def test_the_rate_is_the_best_on_validation_data_and_not_on_test_data():
    grid = [line(CORA, "dfa", rate, 0, test, val) for rate, test, val in ((0.00333, 0.9, 0.1), (0.01, 0.5, 0.7))]
    assert summary.best_rate(CORA, "dfa", grid) is None  # a third is missing
    grid.append(line(CORA, "dfa", 0.03, 0, 0.8, 0.6))
    assert summary.best_rate(CORA, "dfa", grid) == 0.01
    assert summary.best_rate(replace(CORA, higher=False), "dfa", grid) == 0.00333


def test_a_rate_that_diverges_is_passed_over_and_a_rule_that_always_does_says_so():
    diverged = [line(CORA, "dfa", rate, 0, None, None) for rate in CORA.rates]
    assert summary.score(CORA, "dfa", diverged).why == "diverged at every rate"
    some = [*diverged[:2], line(CORA, "dfa", 0.03, 0, 0.5, 0.5)]
    found = summary.score(CORA, "dfa", some)
    assert (found.mean, found.rate, found.edge) == (0.5, 0.03, True)
    assert page.quality(CORA, found) == "50.0 (1)†"
    assert page.EDGE_NOTE in page.notes([CORA], ["dfa"], {"cora": {"dfa": found}})


def test_a_share_is_the_part_of_the_way_from_shallow_training_to_backpropagation():
    lines = []
    for method, tests in (("bp", (2.0, 2.2)), ("shallow", (4.0, 4.2)), ("fitted", (2.5, 2.7))):
        lines += [line(DOCS, method, rate, 0, tests[0], rate) for rate in DOCS.rates]
        lines.append(line(DOCS, method, DOCS.rates[0], 1, tests[1]))
    found = summary.scores(DOCS, ["bp", "shallow", "fitted"], lines)
    assert [found[method].share for method in found] == [1.0, 0.0, 0.75]
    assert found["fitted"].mean == pytest.approx(2.6)
    assert found["fitted"].std == pytest.approx(0.1 * math.sqrt(2))
    assert found["fitted"].exact == 0.02


def test_there_is_no_share_where_the_gap_is_within_the_spread():
    wide, narrow = summary.Score(mean=1.0, std=0.5), summary.Score(mean=2.0, std=0.1)
    assert summary.share_of_way(narrow, wide, narrow, higher=True) is None


def test_a_cell_without_a_run_says_why():
    assert "vocabulary" in refusal(DOCS, "drtp")
    assert "graph convolutions" in refusal(CORA, "fa")
    assert refusal(CORA, "dfa") == ""
    found = {"docs-macro": summary.scores(DOCS, ["bp", "shallow", "drtp"], [line(DOCS, "bp", 1.0, 0, 1.0)])}
    assert any("vocabulary" in note for note in page.refusals([DOCS], ["drtp"], found))


def test_every_rule_of_the_library_is_a_row_and_every_task_a_column():
    from tinydfa.rules import registered

    assert {slug(row) for row in ROWS} == set(registered())
    assert {column.task for column in COLUMNS.values()} == {"graphs", "recsys", "nlp", "nerf", "vision"}
    for column in COLUMNS.values():
        assert {cell.preset.method for cell in table_of(column, ["bp"]).cells} == {"bp"}


def test_a_training_stands_still_after_every_step_and_its_steps_are_as_many_as_were_asked_for():
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    done = []

    def train():
        for number in range(3):
            layer(torch.ones(1, 3)).sum().backward()
            optimizer.step()
            done.append(number)

    with Paused(train) as paused:
        assert paused.step() > 0
        assert done == []  # the step is done, and what comes after it is not
        paused.step(profiles=True)
        assert done == [0]
        assert paused.peak >= 8  # bytes of the output
        paused.step()
        with pytest.raises(RuntimeError, match="ended before"):
            paused.step()


def test_measuring_costs_says_nothing_of_the_profiler():
    program = """
import torch
from reproduce.scoreboard.cost import beside

def train():
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    while True:
        layer(torch.ones(1, 3)).sum().backward()
        optimizer.step()

print(beside(train, train, 1, 2)["memory_ratio"])
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("1.0\n", "")


def test_a_board_on_embedded_data_is_run_resumed_and_written(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("DFA_DATA", raising=False)
    (tmp_path / "mine.py").write_text(
        "import tinydfa\nclass Half(tinydfa.Broadcast):\n    def encode(self, e, y):\n        return e / 2\n"
    )
    config = command.Config(
        methods=("bp", "shallow", "fitted", f"{tmp_path}/mine.py:Half"),
        tasks=("cora",),
        seeds=2,
        scale="quick",
        jobs=1,
        out=tmp_path / "results",
        verbose=True,
    )
    command.main(config)
    said = capsys.readouterr()
    assert "12 runs, about" in said.out
    assert len(re.findall(r"\d\.\d\d times a step of backpropagation \(", said.err)) == 3
    assert len(re.findall(r"\d\.\d % accuracy \(", said.err)) == 12 + 4
    text = (tmp_path / "results" / "scoreboard.md").read_text()
    assert text.count("| BP |") == text.count("| Half |") == text.count("| Fitted, ours |") == 2
    assert (tmp_path / "results" / "scoreboard.png").read_bytes().startswith(b"\x89PNG")
    command.main(config)
    said = capsys.readouterr().out
    for stage in ("learning rates", "seeds of the best", "cost of a step"):
        assert f"{stage}: nothing to run\n" in said
    columns, methods, found, lines = command.board(tmp_path / "results", "quick")
    assert len(lines) == 4 * 4 + 3
    assert picture.points(columns, methods, found).keys() <= set(methods)
    for line_ in lines:
        assert line_["result"]["metrics"] != {}


def test_a_name_that_is_no_task_and_no_column_is_answered_with_those_there_are():
    with pytest.raises(UserError, match="docs-macro"):
        command.chosen(command.Config(tasks=("doc",)))
    assert RunContext().scale == "paper"


def test_your_runs_stand_beside_ours_and_are_measured_by_ours_where_yours_are_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    ours, yours = tmp_path / "results" / "scoreboard", tmp_path / "mine" / "scoreboard"
    for folder, scores in ((ours, {"bp": 0.8, "shallow": 0.4, "dfa": 0.7}), (yours, {"dfa": 0.6})):
        for method, score in scores.items():
            for rate in CORA.rates:
                results.append(folder / "cora.jsonl", line(CORA, method, rate, 0, score, score))
    config = command.Config(tasks=("graphs",), out=tmp_path / "mine", show=True)
    command.main(config)
    printed = [words for text in capsys.readouterr().out.splitlines() if (words := text.split())]
    shares = {" ".join(words[:-2]): words[-2] for words in printed if words[-1] == "%"}
    assert shares == {"BP": "100", "Shallow": "0", "DFA (yours)": "50", "DFA": "75"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "results"]
    command.write(config)
    text = (tmp_path / "mine" / "scoreboard.md").read_text()
    assert "**50 %**" in text[text.index("# Yours") : text.index("# Ours")]
    command.main(replace(config, methods=("bp",)))
    assert "DFA" not in capsys.readouterr().out


def test_a_look_at_a_board_that_has_no_runs_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    command.main(command.Config(out=tmp_path / "mine", show=True))
    assert capsys.readouterr().out == f"no run yet in {tmp_path / 'mine'}\n"


def test_labels_of_points_at_one_height_stand_apart_in_their_order():
    heights = picture.apart([0.2, 0.9, 0.97, 0.98, 1.0], 0.1)
    assert heights[0] == pytest.approx(0.2)
    assert heights == sorted(heights)
    assert min(b - a for a, b in pairwise(heights)) >= 0.1 - 1e-9
    assert heights[0] >= 0
    assert heights[-1] <= 1
    assert picture.apart([], 0.1) == []
    crowd = picture.apart([1.0] * 30, 0.1)
    assert 0 <= crowd[0] < crowd[-1] <= 1
    assert crowd == sorted(set(crowd))


def scored(share, why="", **others):
    return summary.Score(mean=None if why else 1.0, share=share, why=why, step_ratio=2.0, memory_ratio=0.5, **others)


def test_the_short_board_averages_over_a_kind_and_says_nothing_where_a_rule_lacks_one_of_it():
    columns = [COLUMNS[name] for name in ("lego", "fern", "cora")]
    found = {
        "lego": {"bp": scored(1.0), "shallow": scored(0.0), "dfa": scored(0.5), "fa": scored(0.4)},
        "fern": {"bp": scored(1.0), "shallow": scored(0.0), "dfa": scored(0.7), "fa": scored(0.6)},
        "cora": {"bp": scored(1.0), "shallow": scored(0.0), "dfa": scored(0.8), "fa": scored(None, "refused: no")},
    }
    header, rows = short.grid(columns, ["dfa", "fa"], found)
    assert header == ["", "graphs", "radiance fields", "step", "memory", "BP passes"]
    assert rows == [["DFA", "80 %", "60 %", "2.00", "0.50", "0"], ["FA", "–", "50 %", "2.00", "0.50", "0"]]
    assert short.ranked(columns, ["bp", "shallow", "fa", "dfa"], found) == ["dfa", "fa"]
    found["cora"]["fa"] = scored(None, "not run")
    assert short.ranked(columns, ["fa", "dfa"], found) == ["dfa"]


def test_the_short_board_names_the_rules_of_one_seed():
    columns = [COLUMNS[name] for name in ("lego", "fern")]
    ends = {"bp": scored(1.0, seeds=3), "shallow": scored(0.0, seeds=3)}
    lego = {"dfa": scored(0.5, seeds=3), "fa": scored(0.4, seeds=3), "usf": scored(0.3, seeds=1)}
    found = {"lego": ends | lego, "fern": ends | lego | {"fa": scored(0.4, seeds=1)}}
    assert short.markdown(columns, list(lego), found).endswith(" One seed: FA; uSF.\n")
    some = {name: {method: of[method] for method in ("bp", "shallow", "dfa")} for name, of in found.items()}
    assert "One seed" not in short.markdown(columns, ["dfa"], some)


def test_the_short_board_has_dfa_however_many_rules_are_better():
    better = ["fitted", "fdfa", "grape", "les", "las", "usf", "frsf", "kp"]
    scores = {"bp": scored(1.0), "shallow": scored(0.0)} | {name: scored(0.9) for name in better}
    found = {"lego": scores | {"dfa": scored(0.5)}}
    text = short.markdown([COLUMNS["lego"]], list(found["lego"]), found)
    assert [row.split(" | ")[0].strip("| ") for row in text.splitlines()[2:9]][-2:] == ["uSF", "DFA"]
    assert "The best 6 of 9 rules by median share, and DFA." in text


def test_the_picture_has_the_shares_of_all_columns_also_where_no_step_was_timed():
    columns = [COLUMNS[name] for name in ("lego", "fern", "cora")]
    untimed = replace(scored(0.9), step_ratio=None)
    found = {"lego": {"dfa": scored(0.1)}, "fern": {"dfa": untimed}, "cora": {"dfa": untimed}}
    assert picture.points(columns, ["dfa"], found) == {"dfa": (2.0, 0.9)}


def test_the_picture_is_as_wide_as_the_longest_name_needs():
    def width(*rules: str) -> int:
        drawn = picture.picture([COLUMNS["cora"]], rules, {"cora": dict.fromkeys(rules, scored(0.5))})
        return int.from_bytes(drawn[16:20], "big")  # of the header of a PNG

    long = "fitted(exact_every=5,adapt=0.5,exact_between=(5,1000),steady=True)"
    assert width("dfa", long) > 1.2 * width("dfa", "fitted")


def test_the_sentence_says_the_median_and_what_part_of_the_passes_is_exact():
    columns = [COLUMNS[name] for name in ("lego", "fern", "cora")]
    found = {
        column.name: {"dfa": scored(share), "fdfa": scored(share), "fitted": scored(share + 0.1, exact=0.02)}
        for column, share in zip(columns, (0.1, 0.5, 0.6), strict=True)
    }
    assert "3 models at equal steps: DFA 50 %, FDFA 50 %, Fitted 60 % (2 % of its" in short.sentence(columns, found)


def test_a_board_of_one_rule_alone_is_written_too():
    columns = [COLUMNS["cora"]]
    found = {"cora": summary.scores(CORA, ["dfa"], [line(CORA, "dfa", rate, 0, 0.5) for rate in CORA.rates])}
    assert "0 rules" in short.markdown(columns, ["dfa"], found)
    assert "1 models" in short.sentence(columns, found)


def test_the_committed_board_is_that_of_the_committed_runs():
    columns, methods, found, lines = command.board(ROOT / "results")
    texts = {
        "scoreboard": page.markdown(columns, methods, found, lines),
        "scoreboard-short": short.markdown(columns, methods, found),
        "scoreboard-quality": short.sentence(columns, found),
    }
    for name, text in texts.items():
        assert (ROOT / "results" / f"{name}.md").read_text(encoding="utf-8") == text


def test_every_column_of_the_board_belongs_to_one_kind():
    assert sorted(name for names in short.KINDS.values() for name in names) == sorted(COLUMNS)


def test_the_report_shows_the_board_in_short_and_whole():
    found = board(ROOT / "results")
    assert found.short.header[1] == "graphs"
    assert {"DFA", "Fitted", "Shallow"} <= {row[0] for row in found.short.rows}
    assert len(found.table.header) == 1 + len(COLUMNS)
    assert found.figure.image.startswith(b"\x89PNG")


def test_there_is_no_board_without_runs(tmp_path):
    assert board(tmp_path) is None
