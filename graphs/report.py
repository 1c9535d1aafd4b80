"""Pictures of this task for the report: learning curves, alignment over epochs, and maps of the hidden layer."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from graphs.embed import draw
from graphs.presets import MODELS
from harness.methods import colour
from harness.report import Figure, Section
from harness.report.figures import band, png
from harness.report.panels import Lines, draw_methods, grouped, legend, lines_with_curves, side_by_side
from harness.tables import RunContext

NAMES = {"cora": "Cora", "citeseer": "CiteSeer", "pubmed": "PubMed", "synthetic": "the synthetic graph"}


def sections(results_dir: Path, context: RunContext) -> list[Section]:
    """Figures of the runs below `results_dir` at the context's scale; what was not run is left out."""
    folder = results_dir / "graphs"
    lines = {
        name: lines_with_curves(folder / f"{name}.jsonl", context.scale)
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
    for dataset, chosen in grouped(lines, "dataset").items():
        rows = in_order(chosen)
        figure, panels = side_by_side(len(rows), height=2.9, sharey=True)
        for (row, runs), axes in zip(rows.items(), panels, strict=True):
            draw_methods(axes, runs, "val_accuracy", factor=100)
            axes.set(title=row, xlabel="epoch")
        panels[0].set_ylabel("validation accuracy, %")
        legend(figure, panels)
        caption = f"Validation accuracy on {NAMES[dataset]}; mean and one standard deviation over seeds."
        yield Figure(title=f"Learning curves, {NAMES[dataset]}", caption=caption, image=png(figure))


def alignment_curves(lines: Lines) -> Iterable[Figure]:
    """Cosine by epoch: one picture a data set, one panel a model, one line a feedback point."""
    for dataset, chosen in grouped(lines, "dataset").items():
        rows = in_order(chosen)
        figure, panels = side_by_side(len(rows), height=2.9, sharey=True)
        for (row, found), axes in zip(rows.items(), panels, strict=True):
            runs = [run["result"]["curves"] for run in found]
            points = [name for name in runs[0] if name != "epoch" and not name.endswith("_std")]
            for number, point in enumerate(points):
                shade = colour("dfa") if len(points) == 1 else str(0.75 * number / len(points))
                band(axes, [run[point] for run in runs], point, shade, x=runs[0]["epoch"])
            axes.axhline(0, color="black", linewidth=0.8, linestyle="--")
            axes.set(title=row, xlabel="epoch", ylim=(-0.3, 1.05))
            if len(points) > 1:
                axes.legend(frameon=False, fontsize="x-small")
        panels[0].set_ylabel("cosine with backpropagation")
        caption = (
            f"Alignment of DFA's gradient with backpropagation's at each feedback point, {NAMES[dataset]}. Above the "
            "dashed line a step along DFA's gradient lowers the loss."
        )
        yield Figure(title=f"Alignment, {NAMES[dataset]}", caption=caption, image=png(figure))


def embeddings(lines: Lines) -> Iterable[Figure]:
    """t-SNE maps of the hidden layer, the methods side by side."""
    for dataset, chosen in grouped(lines, "dataset").items():
        maps = {line["method"]: line["result"] for line in chosen}
        shown = [maps[method] for method in ("bp", "dfa", "shallow") if method in maps]
        caption = f"Hidden layer of GraphConv on {NAMES[dataset]} under t-SNE, coloured by class, seed 0."
        title = f"Embeddings, {NAMES[dataset]}"
        yield Figure(title=title, caption=caption, image=draw(shown), front=dataset == "cora")


def in_order(lines: Lines) -> dict[str, Lines]:
    """The lines by row, the models in the order of the paper."""
    rows = grouped(lines, "row")
    return {row: rows[row] for row in MODELS.values() if row in rows}
