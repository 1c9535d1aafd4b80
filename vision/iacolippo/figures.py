"""Pictures of iacolippo's experiments for the report."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from harness.methods import colour as colour_of
from harness.report import Figure
from harness.tables import RunContext, results
from vision.iacolippo.drawing import Results, Stack, draw_stacking, draw_theory
from vision.iacolippo.tables import STACKING

STARTS = {  # presets of the table "linear": label and colour
    "linear_zero_dfa": ("DFA, zero weights", colour_of("dfa")),
    "linear_zero_sdfa": ("sDFA, zero weights", colour_of("sdfa")),
    "linear_random_dfa": ("DFA, random weights", colour_of("fa")),
    "linear_random_bp": ("BP, random weights", colour_of("bp")),
    "linear_random_shallow": ("shallow, random weights", colour_of("shallow")),
}


def figures(results_dir: Path, context: RunContext) -> Iterable[Figure]:
    """Figures of the runs below `results_dir` at the context's scale; what was not run is left out."""
    folder = results_dir / "vision"
    linear, stacking = (
        [line for line in results.read(folder / f"{name}.jsonl") if line.get("scale") == context.scale]
        for name in ("linear", "stacking")
    )
    groups = [
        (label, colour, [line["result"] for line in linear if line["preset"] == preset and "curves" in line["result"]])
        for preset, (label, colour) in STARTS.items()
    ]
    if groups := [group for group in groups if group[2]]:
        caption = (
            "A linear network learns a matrix M. Left: cost and distance fall. Right: what the theory says; from zero "
            "weights W2 starts along the feedback B and never leaves its side, so B e points downhill. Mean and one "
            "standard deviation over seeds."
        )
        yield Figure("Why feedback alignment works: a linear network", caption, draw_theory(groups))
    if stacking:
        caption = (
            "Test error on MNIST of stacked learners of one epoch each, mean and one standard deviation over seeds; "
            "same: all learners start from the same weights and differ in their feedback. The RD layer has a fixed "
            "random matrix R between two trained diagonals: DFA cannot train it with a feedback of its own, because "
            "nothing above D1 can turn towards it; with R itself as the feedback it can."
        )
        yield Figure("Stacking weak learners", caption, draw_stacking(runs_of(stacking)))


def runs_of(lines: Results) -> list[Stack]:
    """The settings and the metrics of the runs of table "stacking"."""
    presets = {cell.key: cell.preset for cell in STACKING.cells}
    return [(presets[line["preset"]], line["result"]["metrics"]) for line in lines if line["preset"] in presets]
