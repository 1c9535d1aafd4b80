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
from harness.report import Figure, Section, figures, panels
from harness.tables import Cell, Table, results
from reproduce.report import dots, page, parts, summary


def pixels(png: bytes) -> np.ndarray:
    return matplotlib.image.imread(io.BytesIO(png))[:, :, :3]


def shows(png: bytes, colour: str) -> bool:
    return bool((np.abs(pixels(png) - np.array(to_rgb(colour))).max(axis=2) < 0.01).any())


def table(*numbers: tuple[str, float | None]) -> Table:
    cells = tuple(
        Cell(row="a row", column="Cora", method=method, key=method, dataset="cora", metric="m", published=published)
        for method, published in numbers
    )
    return Table(name="t", title="T", task="fake", unit="%", cells=cells, source="s", run=lambda *_: {})


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


METHODS = ("bp", "dfa", "shallow")


def written(folder: Path, of: Table, lines: list[dict]) -> Table:
    for found in lines:
        results.append(of.path(folder), found)
    return of


def test_the_overview_averages_methods_of_two_tables_over_the_cells_that_all_of_them_have(tmp_path: Path):
    first, second = table(("bp", None), ("dfa", None)), replace(table(("shallow", None)), name="second")
    elsewhere = replace(first, cells=tuple(replace(c, column="PubMed", dataset="pubmed") for c in first.cells))
    both = replace(first, cells=first.cells + elsewhere.cells)
    lines = [line("bp", 0, 80.0), line("dfa", 0, 75.0), line("bp", 0, 1.0, "pubmed"), line("dfa", 0, 1.0, "pubmed")]
    tables = [written(tmp_path, both, lines), written(tmp_path, second, [line("shallow", 0, 60.0)])]
    [row] = parts.overview(tables, tmp_path).rows
    assert row == (first.title, "80.0", "75.0", "60.0", "% ↑", "a row on Cora")


def test_the_overview_says_that_less_is_better_where_backpropagation_is_below_shallow_training(tmp_path: Path):
    lines = [line("bp", 0, 2.0), line("dfa", 0, 3.0), line("shallow", 0, 9.0)]
    errors = written(tmp_path, table(*((method, None) for method in METHODS)), lines)
    assert parts.overview([errors], tmp_path).rows[0][4] == "% ↓"


def test_a_table_that_lacks_a_method_or_tells_how_settings_were_chosen_is_not_in_the_overview(tmp_path: Path):
    pair = written(tmp_path, table(("bp", None), ("dfa", None)), [line("bp", 0, 80.0), line("dfa", 0, 75.0)])
    all_three = replace(table(*((m, None) for m in METHODS)), name="rates", source="ours: how rates were chosen")
    rates = written(tmp_path, all_three, [line(m, 0, 80.0) for m in METHODS])
    assert parts.overview([pair, rates], tmp_path).rows == ()


def test_a_run_that_is_shorter_than_published_is_not_in_the_overview(tmp_path: Path):
    whole = table(*((m, None) for m in METHODS))
    short = replace(whole, cells=tuple(replace(c, length={"epochs": 1}) for c in whole.cells))
    assert parts.overview([written(tmp_path, short, [line(m, 0, 80.0) for m in METHODS])], tmp_path).rows == ()


def test_the_best_pictures_of_a_task_stand_before_what_is_folded(tmp_path: Path):
    front, rest = Figure("best", "", b"", front=True), Figure("other", "", b"")
    found = page.group("fake", [Section("own", figures=(rest, front))], [], tmp_path, None)
    assert found.front == (front,)
    assert [section.figures for section in found.sections] == [(rest,)]


def test_a_report_that_cannot_be_written_is_the_users_mistake(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        page.write_report(tmp_path / "file" / "r.html", "t", "l", [], {}, tmp_path, None)


def test_a_film_is_enlarged_by_a_whole_number_and_says_what_it_is():
    import imageio.v3 as imageio

    film = imageio.imwrite("<bytes>", np.zeros((2, 30, 50, 3), np.uint8), extension=".gif")
    figure = report.Figure("t", "c", film)
    assert figure.width == 400  # 8 x 50, the nearest to 420
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
