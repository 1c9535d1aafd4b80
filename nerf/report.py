"""Figures of this task for the report: test views side by side, a film, and PSNR by step."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.methods import label
from harness.report import Figure, Section
from harness.report.figures import canvas, png
from harness.report.panels import Lines, draw_methods, grouped, legend, lines_with_curves, side_by_side
from harness.tables import RunContext
from nerf.tables import SMALL

WHERE = {"solids": "the generated solids", "synthetic": "the generated solids", "lego": "lego", "fern": "fern"}


def sections(results_dir: Path, context: RunContext) -> list[Section]:
    """Figures of the runs below `results_dir` at the context's scale."""
    folder = results_dir / "nerf"
    trained = lines_with_curves(folder / "nerf-small.jsonl", context.scale)
    trained = [line for line in trained if line["row"] in SMALL.values()]  # one network a scene and method
    released = lines_with_curves(folder / "nerf-released.jsonl", context.scale)
    figures: list[Figure] = []
    for dataset, lines in grouped(trained, "dataset").items():
        same = [line for line in released if line["dataset"] == dataset]
        figures += [*strip(lines, same, dataset), *film(lines, dataset), learning_curves(lines, dataset)]
    lead = "Test views rendered by the trained networks, and how their PSNR rises in training."
    return [Section(title="Radiance fields: views and films", lead=lead, figures=tuple(figures))] if figures else []


def strip(lines: Lines, released: Lines, dataset: str) -> Iterable[Figure]:
    """A test view beside its renderings, colour above depth, seed 0."""
    shown = {label(line["method"]): line for line in lines if pictures(line)}
    for line in released[:1]:
        shown["DFA, released 2020"] = line
    if not shown:
        return
    figure = canvas(1.75 * (len(shown) + 1), 3.9)
    panels = figure.subplots(2, len(shown) + 1, squeeze=False)
    first = next(iter(shown.values()))
    panels[0][0].imshow(decoded(pictures(first)["truth"]), interpolation="nearest")
    panels[0][0].set_title("truth", fontsize="small")
    for column, (name, line) in enumerate(shown.items(), start=1):
        [psnr] = [view["psnr"] for view in line["result"]["curves"]["views"][:1]]
        panels[0][column].set_title(f"{name}\n{psnr:.1f} dB", fontsize="small")
        for row, kind in enumerate(("colour", "depth")):
            panels[row][column].imshow(decoded(pictures(line)[kind]), interpolation="nearest")
    for axes in panels.flat:
        axes.axis("off")
    caption = (
        f"The first test view of {WHERE.get(dataset, dataset)}, seed 0: colour, and below it depth (bright is near)."
    )
    title = f"Truth and renderings, {WHERE.get(dataset, dataset)}"
    yield Figure(title=title, caption=caption, image=png(figure), front=dataset in ("lego", "fern"), photograph=True)


def film(lines: Lines, dataset: str) -> Iterable[Figure]:
    """What DFA's network sees along the scene's path."""
    for line in lines:
        if line["method"] == "dfa" and pictures(line):
            caption = f"Colour and depth by the network that DFA trained on {WHERE.get(dataset, dataset)}, seed 0."
            image = base64.b64decode(pictures(line)["film"])
            yield Figure(f"A walk around, {WHERE.get(dataset, dataset)}", caption, image, photograph=True)


def learning_curves(lines: Lines, dataset: str) -> Figure:
    """PSNR of some pixels of two test views, by step, one colour a method."""
    figure, [axes] = side_by_side(1, 4.2, 3.2)
    draw_methods(axes, lines, "test_psnr", x="step")
    axes.set(xlabel="step", ylabel="PSNR on test views, dB")
    legend(figure, [axes])
    caption = "Of 1,024 pixels of each of two test views; mean and one standard deviation over seeds where there are "
    caption += "several."
    return Figure(title=f"PSNR by step, {WHERE.get(dataset, dataset)}", caption=caption, image=png(figure))


def pictures(line: Mapping[str, Any]) -> dict[str, str]:
    """The pictures that a run kept, if it did."""
    found: dict[str, str] = line["result"]["curves"].get("pictures", {})
    return found


def decoded(text: str) -> Any:
    """A PNG in base64 as an array ``[H, W, 3]``."""
    from matplotlib.image import imread

    return imread(io.BytesIO(base64.b64decode(text)), format="png")
