"""Pictures of this folder for the report: learning curves, alignment by layer, first-layer weights, and what each
experiment adds of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from harness import results
from harness.figures import COLOURS, band, canvas, png
from harness.render import METHODS
from harness.report import Figure, Section
from harness.tables import RunContext
from vision import report_bottleneck, report_iacolippo

SHOWN = {  # table: what is drawn of it
    "drtp-mnist": "MNIST",
    "drtp-cifar": "CIFAR-10",
    "notebook-mnist": "MNIST, standard normal weights",
    "principled-fc": "CIFAR-10, fully connected",
    "biotorch": "CIFAR-10, LeNet",
}
Lines = list[dict[str, Any]]


def sections(results_dir: Path, context: RunContext) -> list[Section]:
    """What the runs below `results_dir` at the context's scale allow to draw; nothing for what was not run."""
    folder = results_dir / "vision"
    figures: list[Figure] = []
    for table, where in SHOWN.items():
        lines = [line for line in results.read(folder / f"{table}.jsonl") if line.get("scale") == context.scale]
        lines = [line for line in lines if line["result"].get("curves")]
        figures += [*learning_curves(lines, where), *alignment_curves(lines, where), *first_weights(lines, where)]
    figures += report_bottleneck.figures(results_dir, context)
    figures += report_iacolippo.figures(results_dir, context)
    lead = "How the runs behind the tables went, epoch by epoch, and what the lowest layer looks for in an image."
    return [Section(title="Small networks: curves and weights", lead=lead, figures=tuple(figures))] if figures else []


def learning_curves(lines: Lines, where: str) -> Iterable[Figure]:
    """Test error by epoch, one panel a row of the table, one colour a method."""
    from matplotlib.ticker import LogLocator, NullLocator

    rows = grouped(lines, "row")
    for part in chunks(list(rows), 4):
        figure = canvas(2.5 * len(part) + 0.8, 3.0)
        panels = figure.subplots(1, len(part), squeeze=False)[0]
        for row, axes in zip(part, panels, strict=True):
            for method, runs in grouped(rows[row], "method").items():
                curves = [[100 * value for value in run["result"]["curves"]["test_error"]] for run in runs]
                band(axes, curves, METHODS.get(method, method), COLOURS[method])
            axes.set(title=row, xlabel="epoch", yscale="log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_locator(NullLocator())
        panels[0].set_ylabel("test error, %")
        legend(figure, panels)
        caption = "Test error; mean and one standard deviation over seeds where there are several."
        yield Figure(title=f"Learning curves, {where}", caption=caption, png=png(figure))


def alignment_curves(lines: Lines, where: str) -> Iterable[Figure]:
    """Cosine with backpropagation by epoch under each method, one panel a hidden layer, of the deepest row."""
    rows = {row: runs for row, runs in grouped(lines, "row").items() if points_of(runs)}
    if not rows:
        return
    row = max(rows, key=lambda row: len(points_of(rows[row])))
    points = points_of(rows[row])
    figure = canvas(2.9 * len(points) + 0.8, 3.0)
    panels = figure.subplots(1, len(points), sharey=True, squeeze=False)[0]
    for number, (point, axes) in enumerate(zip(points, panels, strict=True), start=1):
        for method, runs in grouped(rows[row], "method").items():
            curves = [run["result"]["curves"][point] for run in runs if point in run["result"]["curves"]]
            if curves:
                band(axes, curves, METHODS.get(method, method), COLOURS[method])
        axes.axhline(0, color="black", linewidth=0.8, linestyle="--")
        axes.set(title=f"hidden layer {number}", xlabel="epoch", ylim=(-0.2, 1.05))
    panels[0].set_ylabel("cosine with backpropagation")
    legend(figure, panels)
    caption = (
        f"Alignment with backpropagation's gradient, {row}, mean over some test images. Above the dashed line a "
        "step along the method's gradient lowers the loss."
    )
    yield Figure(title=f"Alignment by layer, {where}", caption=caption, png=png(figure))


def first_weights(lines: Lines, where: str) -> Iterable[Figure]:
    """The weights of some hidden units as images, methods side by side."""
    kept = {line["method"]: line["result"]["curves"]["first_weights"] for line in lines if has_weights(line)}
    shown = [method for method in ("bp", "dfa", "drtp", "shallow") if method in kept]
    if "dfa" not in shown:
        return
    figure = canvas(2.4 * len(shown), 2.7)
    for axes, method in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        axes.imshow(mosaic(kept[method]), cmap="RdBu", interpolation="nearest", vmin=-1, vmax=1)
        axes.set(title=METHODS.get(method, method), xticks=[], yticks=[])
    row = next(line["row"] for line in lines if has_weights(line))
    caption = f"Weights of the first 25 hidden units of {row}, each scaled by its largest; blue is positive. Seed 0."
    yield Figure(title=f"What the lowest layer looks for, {where}", caption=caption, png=png(figure))


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
    found = (name for line in lines for name in line["result"]["curves"] if name.startswith("alignment "))
    return list(dict.fromkeys(found))


def grouped(lines: Lines, key: str) -> dict[str, Lines]:
    """The lines by one of their entries."""
    groups: dict[str, Lines] = defaultdict(list)
    for line in lines:
        groups[line[key]].append(line)
    return dict(groups)


def chunks(items: list[str], size: int) -> Iterable[list[str]]:
    """`items` in order, `size` at a time."""
    return (items[start : start + size] for start in range(0, len(items), size))


def legend(figure: Any, panels: Any) -> None:
    """One legend below all panels, with every method once."""
    found = {label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(found.values(), found, loc="outside lower center", ncols=len(found), frameon=False)
