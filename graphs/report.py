"""Pictures of this task for the report: learning curves, alignment over epochs, and maps of the hidden layer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from graphs.embed import draw
from graphs.presets import MODELS
from harness import results
from harness.figures import COLOURS, band, png
from harness.figures import canvas as empty
from harness.render import METHODS
from harness.report import Figure, Section
from harness.tables import RunContext

NAMES = {"cora": "Cora", "citeseer": "CiteSeer", "pubmed": "PubMed", "synthetic": "the synthetic graph"}
Lines = list[dict[str, Any]]


def sections(results_dir: Path, context: RunContext) -> list[Section]:
    """What the runs below `results_dir` at the context's scale allow to draw; nothing for what was not run."""
    folder = results_dir / "graphs"
    lines = {
        name: [line for line in results.read(folder / f"{name}.jsonl") if line.get("scale") == context.scale]
        for name in ("table3", "tableA4", "tableA2", "figure2")
    }
    figures = [
        *learning_curves(lines["table3"] + lines["tableA4"]),
        *alignment_curves(lines["tableA2"]),
        *embeddings(lines["figure2"]),
    ]
    lead = "How the runs behind the tables went, epoch by epoch, and what the hidden layer makes of the graph."
    return [Section(title="Graphs: curves and embeddings", lead=lead, figures=tuple(figures))] if figures else []


def learning_curves(lines: Lines) -> Iterable[Figure]:
    """Validation accuracy by epoch: one picture a data set, one panel a model, one colour a method."""
    for dataset, chosen in by(lines, "dataset").items():
        figure, panels = canvas(chosen)
        for row, axes in panels.items():
            for method, runs in by(with_row(chosen, row), "method").items():
                curves = [[100 * value for value in run["result"]["curves"]["val_accuracy"]] for run in runs]
                band(axes, curves, METHODS.get(method, method), COLOURS[method])
            axes.set_title(row)
            axes.set_xlabel("epoch")
        first_axes(panels).set_ylabel("validation accuracy, %")
        handles, labels = first_axes(panels).get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        caption = f"Validation accuracy on {NAMES[dataset]}; mean and one standard deviation over seeds."
        yield Figure(title=f"Learning curves, {NAMES[dataset]}", caption=caption, png=png(figure))


def alignment_curves(lines: Lines) -> Iterable[Figure]:
    """Cosine by epoch: one picture a data set, one panel a model, one line a feedback point."""
    for dataset, chosen in by(lines, "dataset").items():
        figure, panels = canvas(chosen)
        for row, axes in panels.items():
            runs = [run["result"]["curves"] for run in with_row(chosen, row)]
            points = [name for name in runs[0] if name != "epoch" and not name.endswith("_std")]
            for number, point in enumerate(points):
                shade = COLOURS["dfa"] if len(points) == 1 else str(0.75 * number / len(points))
                band(axes, [run[point] for run in runs], point, shade, x=runs[0]["epoch"])
            axes.axhline(0, color="black", linewidth=0.8, linestyle="--")
            axes.set_title(row)
            axes.set_xlabel("epoch")
            axes.set_ylim(-0.3, 1.05)
            if len(points) > 1:
                axes.legend(frameon=False, fontsize="x-small")
        first_axes(panels).set_ylabel("cosine with backpropagation")
        caption = (
            f"Alignment of DFA's gradient with backpropagation's at each feedback point, {NAMES[dataset]}. Above the "
            "dashed line a step along DFA's gradient lowers the loss."
        )
        yield Figure(title=f"Alignment, {NAMES[dataset]}", caption=caption, png=png(figure))


def embeddings(lines: Lines) -> Iterable[Figure]:
    """t-SNE maps of the hidden layer, the methods side by side."""
    for dataset, chosen in by(lines, "dataset").items():
        maps = {line["method"]: line["result"] for line in chosen}
        shown = [maps[method] for method in ("bp", "dfa", "shallow") if method in maps]
        caption = f"Hidden layer of GraphConv on {NAMES[dataset]} under t-SNE, coloured by class, seed 0."
        yield Figure(title=f"Embeddings, {NAMES[dataset]}", caption=caption, png=draw(shown))


def by(lines: Lines, key: str) -> dict[str, Lines]:
    """The lines that hold curves, grouped by one of their entries."""
    groups: dict[str, Lines] = defaultdict(list)
    for line in lines:
        if line["result"].get("curves"):
            groups[line[key]].append(line)
    return dict(groups)


def with_row(lines: Lines, row: str) -> Lines:
    """The lines of one row of a table."""
    return [line for line in lines if line["row"] == row]


def canvas(lines: Lines) -> tuple[Any, dict[str, Any]]:
    """A figure with one panel for every model that has lines, and the panels by row."""
    rows = [row for row in MODELS.values() if with_row(lines, row)]
    figure = empty(2.6 * len(rows) + 0.6, 2.9)
    panels = figure.subplots(1, len(rows), sharey=True, squeeze=False)[0]
    return figure, dict(zip(rows, panels, strict=True))


def first_axes(panels: dict[str, Any]) -> Any:
    """The leftmost panel."""
    return next(iter(panels.values()))
