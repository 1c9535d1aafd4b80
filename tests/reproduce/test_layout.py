"""Tables are laid out with methods side by side; what is expected is written by hand."""

from dataclasses import replace
from typing import Any

import pytest

from harness.errors import UserError
from harness.tables import Cell, RunContext, Table
from reproduce import layout


def no_run(cell: Cell, seed: int, context: RunContext) -> dict[str, Any]:
    raise AssertionError("nothing should run here")


def cell(row: str, column: str, method: str, published: float | None = None) -> Cell:
    return Cell(row=row, column=column, method=method, key=row, dataset=column, metric="score", published=published)


def table(*cells: Cell) -> Table:
    return Table(name="t", title="Title", task="fake", unit="%", cells=cells, source="the paper", run=no_run)


def line(of: Cell, seed: int, value: float | None) -> dict[str, Any]:
    names = {"row": of.row, "preset": of.key, "dataset": of.dataset, "method": of.method, "seed": seed}
    return names | {"scale": "paper", "result": {"metrics": {"score": value}, "seconds": 1.0}}


def test_the_methods_of_a_row_stand_in_one_line_and_the_published_numbers_below_it():
    two = table(cell("GCN", "Cora", "bp", 81.5), cell("GCN", "Cora", "dfa"), cell("GAT", "Cora", "bp"))
    header, rows = layout.arranged(two, [line(two.cells[0], 0, 80.0), line(two.cells[1], 0, 70.0)])
    assert header == ("", "", "BP", "DFA")
    assert rows == [("GCN", "ours", "80.0", "70.0"), ("", "paper", "81.5", "–"), ("GAT", "ours", "–", "")]


def test_columns_of_the_table_keep_their_methods_together_where_they_fit():
    two = table(*(cell("GCN", column, method) for column in ("Cora", "PubMed") for method in ("bp", "dfa")))
    header, rows = layout.arranged(two, [])
    assert header == ("", "Cora, BP", "Cora, DFA", "PubMed, BP", "PubMed, DFA")
    assert rows == [("GCN", "–", "–", "–", "–")]


def test_where_they_do_not_fit_every_column_of_the_table_has_a_line():
    names = [f"set {index}" for index in range(5)]
    wide = table(*(cell(row, name, method) for row in ("A", "B") for name in names for method in ("bp", "dfa")))
    header, rows = layout.arranged(wide, [])
    assert header == ("", "", "BP", "DFA")
    assert [row[:2] for row in rows] == [
        *zip(["A", "", "", "", ""], names, strict=True),
        *zip(["B", "", "", "", ""], names, strict=True),
    ]


def test_rows_of_one_method_each_stay_as_they_are():
    ladder = table(cell("with Adam", "docs", "dfa"), cell("backpropagation", "docs", "bp"))
    header, rows = layout.arranged(ladder, [])
    assert header == ("", "method", "docs")
    assert rows == [("with Adam", "DFA", "–"), ("backpropagation", "BP", "–")]


def test_the_usual_number_of_seeds_is_said_once_and_others_in_their_cells():
    three = table(*(cell("GCN", name, method) for name in ("a", "b") for method in ("bp", "dfa")))
    runs = [line(c, seed, 80.0 + seed) for c in three.cells[:3] for seed in range(2)] + [line(three.cells[3], 0, 7.0)]
    _, [row] = layout.arranged(three, runs)
    assert row == ("GCN", "80.5 ± 0.7", "80.5 ± 0.7", "80.5 ± 0.7", "7.0 (1)")
    assert layout.legend(three, runs) == "%; mean ± std over 2 seeds, or as many as brackets say"
    assert layout.legend(three, runs[:6]) == "%; mean ± std over 2 seeds"
    assert layout.legend(three, []) == "%"


def test_a_run_that_is_not_finite_is_told_whatever_the_usual_number_of_seeds():
    two = table(cell("GCN", "Cora", "bp"), cell("GCN", "Cora", "dfa"))
    _, [row] = layout.arranged(
        two, [line(two.cells[0], 0, 80.0), line(two.cells[1], 0, 70.0), line(two.cells[1], 1, None)]
    )
    assert row == ("GCN", "80.0", "70.0 (1, 1 not finite)")


def test_an_excerpt_has_the_rows_and_columns_that_are_named_and_says_where_the_rest_is():
    whole = table(*(cell(row, name, m) for row in ("GCN", "GAT") for name in ("Cora", "PubMed") for m in ("bp", "dfa")))
    text = layout.excerpt(whole, [], ["PubMed", "G?T"], "graphs/RESULTS.md#t")
    assert "|  | BP | DFA |\n| --- | ---: | ---: |\n| GAT | – | – |\n" in text
    assert "GCN" not in text
    assert "(graphs/RESULTS.md#t)" in text
    assert [c.row for c in layout.selected(whole, ["Cora"]).cells] == ["GCN", "GCN", "GAT", "GAT"]
    assert [c.row for c in layout.selected(whole, ["Cora", "GAT", "GCN"]).cells] == ["GAT", "GAT", "GCN", "GCN"]


def test_a_name_that_is_no_row_and_no_column_is_refused_with_those_there_are():
    one = replace(table(cell("GCN", "Cora", "bp")), name="table9")
    with pytest.raises(UserError, match=r"no row or column of table9 is called 'Coar'\. There are: GCN, Cora\."):
        layout.selected(one, ["Coar"])
