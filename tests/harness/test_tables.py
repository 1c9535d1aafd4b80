"""From runs to numbers and texts; expected values are worked out by hand."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from harness import files
from harness.errors import UserError
from harness.tables import Cell, RunContext, Table, aggregate, results
from harness.tables.aggregate import Summary
from reproduce import execute, layout, readme, render, terminal


def no_run(cell: Cell, seed: int, context: RunContext) -> dict[str, Any]:
    raise AssertionError("nothing should run here")


def cell(row: str, dataset: str, method: str, published: float | None = None, metric: str = "accuracy") -> Cell:
    column = dataset.title()
    return Cell(row=row, column=column, method=method, key=row, dataset=dataset, metric=metric, published=published)


CELLS = (
    cell("GCN", "cora", "bp", 81.5),
    cell("GCN", "cora", "dfa", 80.25),
    cell("GCN", "citeseer", "bp"),
    cell("GCN", "citeseer", "dfa", 70.0),
    cell("GAT", "cora", "bp", 83.0),
)
TABLE = Table(
    name="t",
    title="Table 3",
    task="fake",
    unit="%",
    cells=CELLS,
    source="the paper",
    run=no_run,
    scale=100.0,
    notes=("A note.",),
)


def line(of: Cell, seed: int, value: float | None, scale: str = "paper", **more: Any) -> dict[str, Any]:
    result = {
        "metrics": {of.metric: value},
        "seconds": 30.0,
        "device": "cpu",
        "versions": {"torch": "2.13.0"},
        "commit": "abc",
    }
    names = {"row": of.row, "column": of.column, "preset": of.key, "dataset": of.dataset, "method": of.method}
    return {"table": "t", **names, "seed": seed, "scale": scale, "result": result | more}


def test_mean_and_sample_standard_deviation_are_those_worked_out_by_hand():
    lines = [line(CELLS[0], seed, value) for seed, value in enumerate((0.80, 0.82, 0.87))]
    lines.append(line(CELLS[1], 0, 0.1))  # another cell
    found = aggregate.summarise(TABLE, CELLS[0], lines)
    assert found.mean == pytest.approx(83.0)
    assert found.std == pytest.approx(13**0.5)  # ((-3)^2 + (-1)^2 + 4^2) / 2
    assert (found.n, found.failed) == (3, 0)
    assert render.number(TABLE, CELLS[0], lines) == "83.0 ± 3.6 (3)"


def test_one_run_has_no_spread_and_none_is_a_dash():
    assert render.number(TABLE, CELLS[0], [line(CELLS[0], 0, 0.8)]) == "80.0 (1)"
    assert render.number(TABLE, CELLS[0], []) == "–"


def test_a_run_that_is_not_finite_is_shown_and_left_out_of_the_mean():
    lines = [line(CELLS[0], 0, 0.8), line(CELLS[0], 1, None)]
    assert aggregate.summarise(TABLE, CELLS[0], lines) == Summary(mean=80.0, std=None, n=1, failed=1)
    assert render.number(TABLE, CELLS[0], lines) == "80.0 (1, 1 not finite)"
    assert render.number(TABLE, CELLS[0], lines[1:]) == "– (1 not finite)"


@dataclass(frozen=True)
class Preset:
    epochs: int = 100
    train_images: int | None = None
    precision: str = "fp32"
    is_slow: bool = True


@pytest.mark.parametrize(
    ("length", "words"),
    [
        ({}, ""),
        ({"epochs": 1}, "1 of 100 epochs"),
        ({"epochs": 100}, ""),
        (
            {"epochs": 2, "train_images": 1000, "precision": "bf16", "is_slow": False},
            "2 of 100 epochs, 1,000 train images",
        ),
    ],
)
def test_a_cell_says_how_much_shorter_than_published_its_run_is(length, words):
    assert replace(CELLS[0], preset=Preset(), length=length).shortened == words


def test_a_shorter_run_says_so_in_its_cell_wherever_it_is_shown(capsys):
    short = replace(TABLE, cells=tuple(replace(cell, preset=Preset(), length={"epochs": 1}) for cell in CELLS))
    lines = [line(CELLS[0], 0, 0.0934)]
    assert render.number(short, short.cells[0], lines) == "9.3 (1 seed, 1 of 100 epochs)"
    assert render.number(short, short.cells[0], lines, usual=1) == "9.3 (1 of 100 epochs)"
    assert render.number(short, short.cells[1], lines) == "–"
    assert "9.3 (1 of 100 epochs)" in layout.markdown(short, lines)
    assert any("9.3 (1 seed, 1 of 100 epochs)" in row for row in render.grid(short, lines)[1])
    terminal.show_table(short, lines)
    assert "1 of 100 epochs" in capsys.readouterr().out
    for unsaid in (aggregate.at_own_length(short), replace(short, small=True)):
        assert render.number(unsaid, unsaid.cells[0], lines) == "9.3 (1)"


def test_paper_and_ours_stand_side_by_side_and_gaps_stay_gaps():
    header, rows = render.grid(TABLE, [line(CELLS[1], 0, 0.8)])
    assert header == ("", "method", "Cora, paper", "Cora, ours", "Citeseer, paper", "Citeseer, ours")
    assert rows == [
        ("GCN", "BP", "81.5", "–", "–", "–"),
        ("GCN", "DFA", "80.2", "80.0 (1)", "70.0", "–"),
        ("GAT", "BP", "83.0", "–", "", ""),  # the table has no such cell
    ]


def test_a_column_without_published_numbers_has_no_place_for_them():
    half = replace(TABLE, cells=tuple(replace(c, published=None) if c.dataset != "cora" else c for c in CELLS))
    header, rows = render.grid(half, [])
    assert header == ("", "method", "Cora, paper", "Cora, ours", "Citeseer")
    assert rows[1] == ("GCN", "DFA", "80.2", "–", "–")
    assert not any("– under paper" in remark for remark in render.remarks(half, []))  # every place of Cora's is taken


def test_a_mean_over_runs_of_different_settings_is_called_out():
    same = [line(CELLS[0], seed, 0.8, config={"lr": 0.1, "seed": seed, "out": str(seed)}) for seed in (0, 1)]
    assert "different settings" not in layout.markdown(TABLE, same)
    other = line(CELLS[0], 2, 0.8, config={"lr": 0.2, "seed": 2, "out": None})
    assert "different settings are averaged in: GCN BP on cora." in layout.markdown(TABLE, [*same, other])


def test_where_nothing_could_be_read_the_papers_columns_are_left_out_and_one_line_says_so():
    unread = replace(TABLE, cells=tuple(replace(c, published=None) for c in CELLS))
    header, rows = render.grid(unread, [line(CELLS[1], 0, 0.8)])
    assert header == ("", "method", "Cora", "Citeseer")
    assert rows[:2] == [("GCN", "BP", "–", "–"), ("GCN", "DFA", "80.0 (1)", "–")]
    assert render.remarks(unread, [])[:2] == [
        "the paper: no number of it is known, so all shown are ours.",
        "–: not run yet (5 of 5 cells).",
    ]


def test_a_table_of_our_own_says_so():
    own = replace(TABLE, cells=CELLS[2:3], source="ours: no paper has it")
    assert render.remarks(own, [])[0] == "Ours: no paper has it."


def test_on_a_narrow_terminal_no_cell_breaks_and_what_does_not_fit_stands_below(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    label = "GraphConv, decayed twice"
    wide = replace(TABLE, cells=tuple(replace(c, row=label) for c in CELLS[:4]))
    runs = [line(c, seed, value) for c in wide.cells for seed, value in enumerate((0.8, 0.9))]
    first, ours = (*label.split(), "ours"), ("85.0", "±", "7.1")
    expected = {
        100: [(*first, *ours, *ours, *ours, *ours), ("paper", "81.5", "80.2", "–", "70.0")],
        64: [(*first, *ours, *ours), ("paper", "81.5", "80.2"), (*first, *ours, *ours), ("paper", "–", "70.0")],
        52: [text for published in ("81.5", "80.2", "–", "70.0") for text in ((*first, *ours), ("paper", published))],
    }
    for columns, texts in expected.items():
        monkeypatch.setenv("COLUMNS", str(columns))
        terminal.show_table(wide, runs)
        printed = capsys.readouterr().out
        assert max(map(len, printed.splitlines())) <= columns
        table = printed[: printed.index("Published numbers")]
        assert [words for text in table.splitlines() if {"ours", "paper"} & set(words := tuple(text.split()))] == texts


def test_markdown_says_source_gaps_notes_and_where_ours_come_from():
    text = layout.markdown(TABLE, [line(CELLS[0], 0, 0.8), line(CELLS[0], 1, 0.9)])
    assert "| GCN | ours | 85.0 ± 7.1 | – | – | – |" in text
    assert "|  | paper | 81.5 | 80.2 | – | 70.0 |" in text
    assert "- Published numbers: the paper.\n" in text
    assert "- – under paper: no number is known.\n" in text
    assert "- – among ours: not run yet (4 of 5 cells).\n" in text
    assert "- A note.\n" in text
    assert "- Ours: 2 runs, 1.0 minutes in all, on cpu; torch 2.13.0; commit abc.\n" in text


def test_quick_runs_each_row_and_method_once_on_synthetic_data_and_claims_no_published_number():
    small = aggregate.quick(TABLE)
    assert [(c.row, c.method, c.column, c.dataset, c.published) for c in small.cells] == [
        ("GCN", "bp", "synthetic", "synthetic", None),
        ("GCN", "dfa", "synthetic", "synthetic", None),
        ("GAT", "bp", "synthetic", "synthetic", None),
    ]
    assert "not comparable with the published numbers" in layout.markdown(small, [])
    header, _ = render.grid(small, [])
    assert header == ("", "method", "synthetic")


def test_runs_on_a_data_set_that_is_called_synthetic_are_not_small_for_that():
    long = replace(TABLE, cells=tuple(replace(cell, dataset="synthetic") for cell in CELLS))
    assert "- Published numbers: the paper.\n" in layout.markdown(long, [])
    assert "Small runs" not in layout.markdown(long, [])


def test_quick_keeps_two_metrics_apart():
    both = replace(TABLE, cells=(CELLS[0], replace(CELLS[0], column="Loss", metric="loss")))
    assert [c.column for c in aggregate.quick(both).cells] == ["synthetic, accuracy", "synthetic, loss"]


def test_two_metrics_of_one_training_are_one_run(tmp_path: Path):
    both = replace(TABLE, cells=(CELLS[0], replace(CELLS[0], column="Loss", metric="loss")))
    jobs = execute.pending(both, 2, tmp_path, RunContext())
    assert [(job.cell, job.seed) for job in jobs] == [(CELLS[0], 0), (CELLS[0], 1)]


def test_only_the_named_data_sets_run():
    assert {c.dataset for c in aggregate.only(TABLE, ["citeseer"]).cells} == {"citeseer"}
    assert aggregate.only(TABLE, []).cells == CELLS


def test_columns_without_any_number_can_be_left_out():
    assert aggregate.with_numbers(TABLE, []).cells == CELLS  # one number is published in each column
    unread = replace(TABLE, cells=tuple(replace(c, published=None) for c in CELLS))
    assert {c.column for c in aggregate.with_numbers(unread, [line(CELLS[3], 0, 0.8)]).cells} == {"Citeseer"}


def test_a_data_set_that_no_table_has_is_named_with_those_there_are():
    citeseer = replace(TABLE, name="u", cells=CELLS[2:4])
    aggregate.check_datasets([citeseer, TABLE], ["cora"])  # one table has it
    with pytest.raises(UserError, match=r"^--datasets coar: no such data set in u, t\. There are: citeseer, cora\.$"):
        aggregate.check_datasets([citeseer, TABLE], ["cora", "coar"])


def test_runs_of_the_other_scale_do_not_count(tmp_path: Path):
    results.append(TABLE.path(tmp_path), line(CELLS[0], 0, 0.8, scale="quick"))
    assert aggregate.lines_of(TABLE, tmp_path, "paper") == []
    assert len(execute.pending(TABLE, 1, tmp_path, RunContext())) == 5


def test_a_results_line_cut_short_by_a_kill_is_left_out_and_later_ones_are_read(tmp_path: Path):
    path = TABLE.path(tmp_path)
    results.append(path, line(CELLS[0], 0, 0.8))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:40])
    assert len(results.read(path)) == 1
    results.append(path, line(CELLS[0], 1, 0.9))
    assert [found["seed"] for found in results.read(path)] == [0, 1]


def test_a_results_line_without_its_newline_does_not_count_as_done(tmp_path: Path):
    path = TABLE.path(tmp_path)
    results.append(path, line(CELLS[0], 0, 0.8))
    path.write_bytes(path.read_bytes().rstrip(b"\n"))  # the write was cut by one byte, and appending will drop the line
    assert results.read(path) == []
    results.append(path, line(CELLS[0], 1, 0.9))
    assert [found["seed"] for found in results.read(path)] == [1]


@pytest.mark.parametrize("missing", sorted(results.KEYS))
def test_a_line_that_could_not_be_read_is_not_written(tmp_path: Path, missing: str):
    path = TABLE.path(tmp_path)
    whole = line(CELLS[0], 0, 0.8)
    with pytest.raises(ValueError, match=rf"needs .*{missing}"):
        results.append(path, {name: value for name, value in whole.items() if name != missing})
    assert not path.exists()


def test_a_file_is_replaced_whole_or_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "folder" / "file.md"
    files.write_whole(path, b"one")
    monkeypatch.setattr(files.os, "fsync", lambda _: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(UserError, match=r"cannot write .*file\.md: no space.*--out"):
        files.write_whole(path, "two")
    assert path.read_text() == "one"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (b"nonsense", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b'{"a": NaN}', r"is not JSON \(NaN is no finite number\)"),
        (b'{"a": 1e400}', r"is not JSON \(1e400 is no finite number\)"),
        (b"5", "is not a run of a table"),
        (b'{"a": 1}', "is not a run of a table"),
        (b'{"preset": 0, "dataset": 0, "method": 0, "seed": 0, "scale": 0, "result": null}', "is not a run of a table"),
    ],
)
def test_a_damaged_results_line_is_named_with_its_number(tmp_path: Path, damage: bytes, message: str):
    path = TABLE.path(tmp_path)
    results.append(path, line(CELLS[0], 0, 0.8))
    path.write_bytes(path.read_bytes() + damage + b"\n" + path.read_bytes())
    with pytest.raises(UserError, match=rf"\.jsonl, line 2 {message}.*Delete that line to run it again\."):
        results.read(path)


def test_what_runs_took_on_a_gpu_is_told_by_table(tmp_path: Path):
    rows = [
        {"table": "t", "run": "GCN dfa on cora", "epochs": "all", "seconds": 7.4},
        {"table": "u", "run": "FC bp on mnist", "epochs": "10", "seconds": 15.6},
    ]
    for device in ("a", "b"):
        path = tmp_path / "benchmarks" / f"run_times-{device}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"environment": {"device": device}, "rows": rows}))
        rows.pop()
    assert terminal.gpu_times(tmp_path) == {
        "t": ["7 s for GCN dfa on cora (a)", "7 s for GCN dfa on cora (b)"],
        "u": ["16 s for FC bp on mnist, 10 epochs (a)"],
    }


def test_numbers_that_are_not_finite_become_null(tmp_path: Path):
    found = {"a": float("nan"), "b": [float("inf"), 1.5], "c": (1, "x")}
    results.append(tmp_path / "r.jsonl", line(CELLS[0], 0, 0.8) | {"result": found})
    [read] = results.read(tmp_path / "r.jsonl")
    assert read["result"] == {"a": None, "b": [None, 1.5], "c": [1, "x"]}


def upper(name: str, parts: list[str], asking: Path) -> str:
    return " ".join([name.upper(), *parts])


README = (
    "# T\n<!-- results:t -->\nold\n<!-- /results -->\nbetween\n"
    "<!-- results:u | a row | b* -->\n<!-- /results -->\nend\n"
)


def test_readme_blocks_are_filled_and_the_rest_is_untouched(tmp_path: Path):
    path = tmp_path / "README.md"
    path.write_text(README)
    assert list(readme.outdated([path], upper)) == [path]
    assert readme.update([path], upper) == [path]
    expected = (
        "# T\n<!-- results:t -->\n\nT\n\n<!-- /results -->\nbetween\n"
        "<!-- results:u | a row | b* -->\n\nU a row b*\n\n<!-- /results -->\nend\n"
    )
    assert path.read_text() == expected
    assert readme.update([path], upper) == []


def test_a_readme_block_that_is_not_closed_is_named(tmp_path: Path):
    path = tmp_path / "README.md"
    path.write_text(README.replace("<!-- /results -->\nend", "end"))
    with pytest.raises(UserError, match=r"README\.md: a block .* is not closed"):
        readme.update([path], upper)
