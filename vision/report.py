"""Pictures of this folder for the report: learning curves, alignment by layer, first-layer weights, and what each
experiment adds of its own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from harness.methods import label
from harness.report import Figure, Section
from harness.report.figures import canvas, png
from harness.report.panels import Lines, chunks, draw_methods, grouped, legend, lines_with_curves, side_by_side
from harness.run.numbers import alignments
from harness.tables import RunContext
from vision.bottleneck import figures as bottleneck
from vision.iacolippo import figures as iacolippo

SHOWN = {  # table: what is drawn of it
    "drtp-mnist": "MNIST",
    "drtp-cifar": "CIFAR-10",
    "notebook-mnist": "MNIST, standard normal weights",
    "principled-fc": "CIFAR-10, fully connected",
    "biotorch": "CIFAR-10, LeNet",
}

SMALL = {"drtp-mnist": "8 x 8 digits", "notebook-mnist": "8 x 8 digits, standard normal weights"}  # where digits teach


def sections(results_dir: Path, context: RunContext) -> list[Section]:
    """Figures of the runs below `results_dir` at the context's scale; what was not run is left out."""
    folder = results_dir / "vision"
    figures: list[Figure] = []
    for table, where in (SHOWN if context.scale == "paper" else SMALL).items():
        lines = lines_with_curves(folder / f"{table}.jsonl", context.scale)
        lines = [line for line in lines if len(line["result"]["curves"]["train_loss"]) > 1]  # a point is no curve
        figures += [*learning_curves(lines, where), *alignment_curves(lines, where), *first_weights(lines, where)]
    figures += bottleneck.figures(results_dir, context)
    figures += iacolippo.figures(results_dir, context)
    lead = "How the runs behind the tables went, epoch by epoch, and what the lowest layer looks for in an image."
    return [Section(title="Small networks: curves and weights", lead=lead, figures=tuple(figures))] if figures else []


def learning_curves(lines: Lines, where: str) -> Iterable[Figure]:
    """Test error by epoch, one panel a row of the table, one colour a method."""
    from matplotlib.ticker import LogLocator, NullLocator

    rows = grouped(lines, "row")
    for part in chunks(list(rows), 4):
        figure, panels = side_by_side(len(part), 2.5)
        for row, axes in zip(part, panels, strict=True):
            draw_methods(axes, rows[row], "test_error", factor=100)
            axes.set(title=row, xlabel="epoch", yscale="log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_locator(NullLocator())
        panels[0].set_ylabel("test error, %")
        legend(figure, panels)
        caption = "Test error; mean and one standard deviation over seeds where there are several."
        yield Figure(title=f"Learning curves, {where}", caption=caption, image=png(figure))


def alignment_curves(lines: Lines, where: str) -> Iterable[Figure]:
    """Cosine with backpropagation by epoch under each method, one panel a hidden layer, of the deepest row."""
    rows = {row: runs for row, runs in grouped(lines, "row").items() if points_of(runs)}
    if not rows:
        return
    row = max(rows, key=lambda row: len(points_of(rows[row])))
    points = points_of(rows[row])
    figure, panels = side_by_side(len(points), 2.9, sharey=True)
    for number, (point, axes) in enumerate(zip(points, panels, strict=True), start=1):
        draw_methods(axes, rows[row], point)
        axes.axhline(0, color="black", linewidth=0.8, linestyle="--")
        axes.set(title=f"hidden layer {number}", xlabel="epoch", ylim=(-0.2, 1.05))
    panels[0].set_ylabel("cosine with backpropagation")
    legend(figure, panels)
    caption = (
        f"Alignment with backpropagation's gradient, {row}, mean over some test images. Above the dashed line a "
        "step along the method's gradient lowers the loss."
    )
    yield Figure(title=f"Alignment by layer, {where}", caption=caption, image=png(figure))


def first_weights(lines: Lines, where: str) -> Iterable[Figure]:
    """The weights of some hidden units as images, methods side by side."""
    kept = {line["method"]: line["result"]["curves"]["first_weights"] for line in lines if has_weights(line)}
    shown = [method for method in ("bp", "dfa", "drtp", "shallow") if method in kept]
    if "dfa" not in shown:
        return
    figure = canvas(2.4 * len(shown), 2.7)
    for axes, method in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        axes.imshow(mosaic(kept[method]), cmap="RdBu", interpolation="nearest", vmin=-1, vmax=1)
        axes.set(title=label(method), xticks=[], yticks=[])
    row = next(line["row"] for line in lines if has_weights(line))
    caption = f"Weights of the first 25 hidden units of {row}, each scaled by its largest; blue is positive. Seed 0."
    title = f"What the lowest layer looks for, {where}"
    yield Figure(title=title, caption=caption, image=png(figure), front=where == "MNIST")


def mosaic(weights: list[list[float]]) -> np.ndarray:
    """Square images side by side in a square, each divided by its largest weight, a gap between them."""
    images = np.array(weights, float)
    side, across = round(images.shape[1] ** 0.5), int(len(images) ** 0.5)
    images = images[: across * across] / np.abs(images[: across * across]).max(axis=1, keepdims=True)
    framed = np.pad(images.reshape(-1, side, side), ((0, 0), (1, 1), (1, 1)))
    return framed.reshape(across, across, side + 2, side + 2).swapaxes(1, 2).reshape(across * (side + 2), -1)


def has_weights(line: dict[str, Any]) -> bool:
    """Whether a run kept weights that are square images of one channel."""
    weights = line["result"]["curves"].get("first_weights")
    return bool(weights) and round(len(weights[0]) ** 0.5) ** 2 == len(weights[0])


def points_of(lines: Lines) -> list[str]:
    """Names of the curves of alignment in these runs, from the bottom up."""
    return list(dict.fromkeys(name for line in lines for name in alignments(line["result"]["curves"])))
