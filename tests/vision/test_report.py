"""Pictures of the report: drawn from what the results hold, and nothing without results."""

import numpy as np

from harness.tables import RunContext, results
from vision.report import mosaic, points_of, sections


def line(method, row="FC1-500", weights=None, points=1):
    curves = {"test_error": [0.5, 0.25], "train_loss": [1.0, 0.5]}
    if method not in ("bp", "shallow"):
        curves |= {f"alignment hidden.{number}.point": [0.1, 0.5] for number in range(points)}
    if weights:
        curves["first_weights"] = weights
    return {
        "table": "drtp-mnist",
        "row": row,
        "column": "MNIST",
        "preset": f"p_{method}",
        "dataset": "mnist",
        "method": method,
        "seed": 0,
        "scale": "paper",
        "result": {"metrics": {}, "curves": curves},
    }


def test_nothing_is_drawn_of_nothing(tmp_path):
    assert sections(tmp_path, RunContext()) == []


def test_curves_alignment_and_weights_are_drawn_where_there_are_runs(tmp_path):
    weights = np.random.default_rng(0).normal(size=(25, 16)).tolist()
    path = tmp_path / "vision" / "drtp-mnist.jsonl"
    for method in ("bp", "dfa", "shallow"):
        results.append(path, line(method, weights=weights))
    results.append(path, line("dfa", row="FC2-500", points=2))
    [section] = sections(tmp_path, RunContext())
    assert [figure.title.split(",")[0] for figure in section.figures] == [
        "Learning curves",
        "Alignment by layer",
        "What the lowest layer looks for",
    ]
    assert "FC2-500" in section.figures[1].caption  # the deepest network
    assert all(figure.image.startswith(b"\x89PNG") for figure in section.figures)
    assert sections(tmp_path, RunContext(scale="quick")) == []


def test_points_are_listed_from_the_bottom_up():
    assert points_of([line("bp"), line("dfa", points=2)]) == ["alignment hidden.0.point", "alignment hidden.1.point"]


def test_a_mosaic_shows_each_unit_at_full_contrast_in_reading_order():
    found = mosaic([[value] * 4 for value in (1.0, 2.0, 3.0, -4.0)])
    assert found.shape == (8, 8)
    np.testing.assert_array_equal(found[1:3, 1:3], np.ones((2, 2)))
    np.testing.assert_array_equal(found[5:7, 5:7], -np.ones((2, 2)))
    assert not found[0].any()
