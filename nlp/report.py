"""Figures of this task for the report: validation perplexity by step, alignment by step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from harness.methods import colour
from harness.report import Excerpt, Figure, Section
from harness.report.figures import band, png
from harness.report.panels import Lines, grouped, lines_with_curves, side_by_side
from harness.run.numbers import alignments
from harness.tables import RunContext

WHERE = {"docs": "the documentation corpus", "synthetic": "Python's own documentation", "wikitext-103": "WikiText-103"}
KINDS = ("backpropagation", "macro", "micro")  # rows are grouped by their first word; shallow is in every panel
SAMPLED = ("backpropagation", "macro, + schedule", "micro, + schedule", "macro, ours", "shallow")
SHADES = ("#0072B2", "#009E73", "#CC79A7", "#E69F00", "#8C6BB1")


def sections(results_dir: Path, context: RunContext) -> list[Section]:
    """Figures of the runs below `results_dir` at the context's scale."""
    folder = results_dir / "nlp"
    trained, aligned = (
        lines_with_curves(folder / f"{name}.jsonl", context.scale) for name in ("table5", "nlp-alignment")
    )
    figures = (*learning_curves(trained), *alignment_curves(aligned))
    excerpts = tuple(samples(trained))
    lead = "Validation perplexity in training, and how some models continue the "
    lead += "beginning of the validation text."
    return [Section(title="Language model: curves", lead=lead, figures=figures, excerpts=excerpts)] if figures else []


def learning_curves(lines: Lines) -> Iterable[Figure]:
    """Validation perplexity by step: one picture a corpus, one panel a kind, one line a row."""
    from matplotlib.ticker import LogLocator

    for dataset, chosen in grouped(lines, "dataset").items():
        rows = grouped(chosen, "row")
        kinds = [kind for kind in KINDS if any(row.startswith(kind) for row in rows)]
        figure, panels = side_by_side(len(kinds), 3.0, 3.4, sharey=True)
        for kind, axes in zip(kinds, panels, strict=True):
            shown = [row for row in rows if row.startswith(kind)]
            for shade, row in zip(SHADES, shown, strict=False):
                draw(axes, rows[row], label(row, kind), shade)
            if "shallow" in rows:
                draw(axes, rows["shallow"], "shallow", colour("shallow"))
            axes.set(title=kind, xlabel="step", yscale="log")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
            axes.yaxis.set_minor_formatter("{x:g}")
            axes.legend(frameon=False, fontsize="x-small")
        panels[0].set_ylabel("validation perplexity a token")
        caption = (
            f"Perplexity on the validation text of {WHERE.get(dataset, dataset)}; mean and one standard deviation "
        )
        caption += "over seeds where there are several."
        yield Figure(title=f"Learning curves, {WHERE.get(dataset, dataset)}", caption=caption, image=png(figure))


def draw(axes: object, lines: Lines, name: str, colour: str) -> None:
    """One row's perplexity over its validations."""
    curves = [line["result"]["curves"] for line in lines]
    steps = min((found["step"] for found in curves), key=len)
    band(axes, [[math.exp(loss) for loss in found["val_loss"]] for found in curves], name, colour, x=steps)


def label(row: str, kind: str) -> str:
    """A row without what its panel's title says already."""
    return row.removeprefix(kind).removeprefix(", ") or "as published"


def samples(lines: Lines) -> Iterable[Excerpt]:
    """What the models of some rows write, seed 0."""
    for line in lines:
        found = line["result"]["curves"].get("sample")
        if found and line["row"] in SAMPLED:
            yield Excerpt(line["row"], f"[{found['prompt']}] {found['text']}")


def alignment_curves(lines: Lines) -> Iterable[Figure]:
    """Cosine by step: one panel a row, one line a feedback point."""
    rows = grouped(lines, "row")
    if not rows:
        return
    figure, panels = side_by_side(len(rows), 2.4, 2.9, sharey=True)
    for (row, runs), axes in zip(rows.items(), panels, strict=True):
        curves = runs[0]["result"]["curves"]
        points = list(alignments(curves))
        for number, point in enumerate(points):
            axes.plot(curves["alignment_step"], curves[point], color=str(0.75 * number / len(points)))
        axes.axhline(0, color="black", linewidth=0.8, linestyle="--")
        axes.set(title=row, xlabel="step", ylim=(-0.3, 1.05))
        axes.title.set_fontsize("small")
    panels[0].set_ylabel("cosine with backpropagation")
    caption = "Alignment of DFA's gradient with backpropagation's on a validation batch, seed 0; one line a feedback "
    caption += "point, the darkest nearest to the embedding."
    yield Figure(title="Alignment in the Transformer", caption=caption, image=png(figure))
