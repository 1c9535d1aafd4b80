"""Figures are pictures at twice the size they are shown at, with one colour per method."""

import io
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from harness import report
from harness.errors import UserError
from harness.methods import colour, known
from harness.report import figures, panels
from harness.tables import Cell, Table
from reproduce import dots, page, summary


def pixels(png: bytes) -> np.ndarray:
    return matplotlib.image.imread(io.BytesIO(png))[:, :, :3]


def shows(png: bytes, colour: str) -> bool:
    return bool((np.abs(pixels(png) - np.array(to_rgb(colour))).max(axis=2) < 0.01).any())


def table(*cells: tuple[str, float | None]) -> Table:
    parts = tuple(
        Cell(row="a row", column="Cora", method=method, key=method, dataset="cora", metric="m", published=published)
        for method, published in cells
    )
    return Table(name="t", title="T", task="fake", unit="%", cells=parts, source="s", run=lambda *_: {})


def line(method: str, seed: int, value: float, dataset: str = "cora", **result: object) -> dict:
    names = {"row": "a row", "column": "Cora", "preset": method, "dataset": dataset, "method": method, "seed": seed}
    return names | {"scale": "paper", "result": {"metrics": {"m": value}} | result}


def test_every_method_has_a_colour_of_its_own():
    colours = [colour(name) for name in known()]
    assert len(set(colours)) == len(colours)
    assert "#999999" not in colours  # that of a rule that names none


def test_curves_show_each_method_in_its_colour_at_twice_the_size():
    figure = figures.canvas(6.0, 3.6)
    axes = figure.add_subplot()
    for method, runs in {"bp": [[1, 2, 3], [2, 3]], "dfa": [[0, None, 1]]}.items():
        figures.band(axes, runs, method, colour(method))
    axes.legend()
    png = figures.png(figure)
    assert pixels(png).shape[:2] == (720, 1200)  # 6 x 3.6 inches at 100 dots per inch, twice
    assert report.Figure("t", "c", png).width == 600
    assert shows(png, colour("bp"))
    assert shows(png, colour("dfa"))
    assert not shows(png, colour("drtp"))


def test_dots_show_ours_and_without_runs_only_what_is_published():
    pair = table(("bp", 80.0), ("dfa", None))
    published = dots.dots_png(pair, [])
    both = dots.dots_png(pair, [line("dfa", 0, 70.0)])
    assert published != both
    assert shows(both, colour("dfa"))


def test_the_headline_compares_methods_over_the_cells_that_all_of_them_have():
    three = table(("bp", None), ("dfa", None))
    assert summary.headline(three, [line("bp", 0, 80.0)]) == ""
    lines = [line("bp", 0, 80.0), line("bp", 1, 82.0), line("dfa", 0, 70.0)]
    assert summary.headline(three, lines) == "BP 81.0%, DFA 70.0%."


def test_methods_of_two_tables_are_averaged_over_the_cells_that_all_of_them_have():
    first, second = table(("bp", None), ("dfa", None)), table(("shallow", None))
    elsewhere = replace(first, cells=tuple(replace(c, column="PubMed", dataset="pubmed") for c in first.cells))
    both = replace(first, cells=first.cells + elsewhere.cells)
    lines = [line("bp", 0, 80.0), line("dfa", 0, 75.0), line("bp", 0, 1.0, "pubmed"), line("dfa", 0, 1.0, "pubmed")]
    [found] = summary.comparisons([(both, lines), (second, [line("shallow", 0, 60.0)])])
    assert found.means == {"bp": 80.0, "dfa": 75.0, "shallow": 60.0}
    assert (found.rows, found.columns, found.cells) == (("a row",), ("Cora",), 1)
    assert found.recovered == pytest.approx(0.75)


def test_tables_about_different_data_are_not_averaged():
    cora = table(("bp", None), ("dfa", None))
    pubmed = replace(cora, cells=tuple(replace(c, column="PubMed", dataset="pubmed") for c in cora.cells))
    easy = [line("bp", 0, 80.0), line("dfa", 0, 75.0)]
    hard = [line("bp", 0, 40.0, "pubmed"), line("dfa", 0, 30.0, "pubmed")]
    found = summary.comparisons([(cora, easy), (pubmed, hard)])
    assert [comparison.means for comparison in found] == [{"bp": 80.0, "dfa": 75.0}, {"bp": 40.0, "dfa": 30.0}]


@pytest.mark.parametrize("other", [{"unit": "dB"}, {"source": "ours: no paper has it"}])
def test_what_is_no_percentage_or_no_papers_is_not_in_the_headline(other: dict[str, str]):
    pair = replace(table(("bp", None), ("dfa", None)), **other)
    assert summary.comparisons([(pair, [line("bp", 0, 80.0), line("dfa", 0, 75.0)])]) == []


def test_a_report_that_cannot_be_written_is_the_users_mistake(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        page.write_report(tmp_path / "file" / "r.html", "t", "l", [], {}, tmp_path, None)


def test_a_film_is_shown_at_its_own_size_and_says_what_it_is():
    import imageio.v3 as imageio

    film = imageio.imwrite("<bytes>", np.zeros((2, 30, 50, 3), np.uint8), extension=".gif")
    figure = report.Figure("t", "c", film)
    assert figure.width == 50
    assert figure.uri.startswith("data:image/gif;base64,")


def test_texts_stand_on_the_page_as_they_are(tmp_path):
    section = report.Section("Samples", excerpts=(report.Excerpt("BP", "a <b> & c\n  d"),))
    page.write_report(tmp_path / "page.html", "T", "lead", [], {"nlp": [section]}, tmp_path, None)
    text = (tmp_path / "page.html").read_text()
    assert "<strong>BP</strong>a &lt;b&gt; &amp; c\n  d</blockquote>" in text


def test_panels_group_runs_by_method_and_leave_out_those_without_the_curve():
    runs = [
        {"row": "r", "method": method, "result": {"curves": curves}}
        for method, curves in (("bp", {"auc": [0.5, 0.75]}), ("bp", {"auc": [0.7]}), ("dfa", {"loss": [1.0]}))
    ]
    figure, [axes] = panels.side_by_side(1)
    panels.draw_methods(axes, runs, "auc", factor=100)
    [line] = axes.get_lines()
    assert line.get_label() == "BP"
    assert line.get_ydata().tolist() == pytest.approx([60.0])
    panels.legend(figure, [axes])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["BP"]
    assert list(panels.chunks("abcde", 2)) == ["ab", "cd", "e"]
