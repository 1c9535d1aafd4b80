"""Pipeline schedules simulated: `python -m benchmarks.timelines`, timelines as a picture and a table up to 256 stages.

    python -m benchmarks.timelines --stages 4 --microbatches 8 --figure results/benchmarks/pipeline.svg
    python -m benchmarks.timelines --inputs 0.5 --error 4

One unit is a forward pass of one microbatch through one stage. The table has a fast network (a message to a neighbour
takes 0.02 units) and a slow one (0.5). An error is `--error` times as large as an activation and passes from stage to
stage in a tree: the root sends it once for each level, ceil(log2 P) times.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.schedules import SCHEDULES, Done, Times, simulate
from harness.errors import UserError

NETWORKS = {"fast": 0.02, "slow": 0.5}  # units that an activation takes to a neighbour
STEPS = {
    "dfa overlap": 2,
    "dfa replay": 2,
    "drtp": 2,
}  # simulated; of the others one, each begins with an idle pipeline
COLOURS = {"F": "#56B4E9", "W": "#009E73", "I": "#D55E00", "B": "#E69F00"}
MEANING = {"F": "forward", "W": "weights' gradient", "I": "input's gradient", "B": "both gradients"}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Simulate pipeline schedules of backpropagation and DFA."""

    stages: int = 4
    """P of the picture."""
    microbatches: int = 8
    """M of the picture."""
    most: int = 256
    """Stages of the table's last rows."""
    per_stage: tuple[float, ...] = (1.0, 4.0)
    """Microbatches for every stage in the table."""
    weights: float = 1.0
    """Units that W takes."""
    inputs: float = 1.0
    """Units that I takes, under backpropagation."""
    left: float = 0.0
    """Share of I that DFA computes all the same: layers between two points."""
    error: float = 1.0
    """Size of an error over that of an activation."""
    graph: float = 16.0
    """Size of the graph of a microbatch in a stage over that of an activation."""
    figure: Path | None = None
    """Draw the timelines to this file."""
    out: Path | None = None
    """Write the table to this JSON file as well."""

    def __post_init__(self) -> None:
        if min(self.stages, self.microbatches, self.most) < 1 or min(self.per_stage, default=0) <= 0:
            raise UserError("--stages, --microbatches, --most and --per-stage must be above 0.")
        if min(self.weights, self.inputs, self.error, self.graph) < 0 or not 0 <= self.left <= 1:
            raise UserError(
                "--weights, --inputs, --error and --graph cannot be negative, and --left is a share from 0 to 1."
            )


def times_for(name: str, stages: int, send: float, config: Config) -> Times:
    """What a schedule's work takes on a network."""
    dfa = SCHEDULES[name].broadcasts or name == "drtp"
    weights = config.weights + (config.left * config.inputs if dfa else 0.0) + SCHEDULES[name].replays
    broadcast = send * config.error * math.ceil(math.log2(stages)) if stages > 1 else 0.0
    return Times(weights=weights, inputs=config.inputs, send=send, broadcast=broadcast)


def table(config: Config) -> list[dict[str, Any]]:
    """One row for every network, number of stages and of microbatches."""
    rows = []
    for network, send in NETWORKS.items():
        stages = 2
        while stages <= config.most:
            for each in config.per_stage:
                rows.append(row(network, send, stages, max(1, round(each * stages)), config))
            stages *= 2
    return rows


def row(network: str, send: float, stages: int, microbatches: int, config: Config) -> dict[str, Any]:
    found: dict[str, Any] = {"network": network, "P": stages, "M": microbatches}
    held: dict[str, str] = {}
    for name, schedule in SCHEDULES.items():
        times = times_for(name, stages, send, config)
        run = simulate(name, stages, microbatches, times, steps=STEPS.get(name, 1))
        found[schedule.label] = round(run.step_time, 1)
        held[f"held, {schedule.label}"] = f"{run.most[0]} to {run.most[-1]}"
        sizes = [memory(schedule.replays, run.most[stage], config) for stage in (0, -1)]
        held[f"memory, {schedule.label}"] = f"{sizes[0]:g} to {sizes[1]:g}"
    first = found["BP, 1F1B"]
    found["overlapped / 1F1B"] = round(found["DFA, overlapped"] / first, 2)
    found["overlapped / ZB-H1"] = round(found["DFA, overlapped"] / found["BP, ZB-H1"], 2)
    return found | held


def memory(replays: bool, held: int, config: Config) -> float:
    """What a stage holds beside its weights, in activations: graphs, or inputs and the graph that is made again."""
    return held + config.graph if replays else held * config.graph


def where_it_ends(rows: Sequence[dict[str, Any]]) -> str:
    """Where DFA's advantage over the faster of backpropagation's schedules ends, network by network."""
    return " ".join(end_on(name, [row for row in rows if row["network"] == name]) for name in NETWORKS)


def end_on(network: str, rows: Sequence[dict[str, Any]]) -> str:
    """The sentence on one network."""
    lost = [row for row in rows if row["overlapped / ZB-H1"] >= 1]
    if not lost:
        worst = max(rows, key=lambda row: row["overlapped / ZB-H1"])
        return (
            f"On the {network} network DFA gains in every row, least with P = {worst['P']} and M = {worst['M']}: "
            f"{worst['overlapped / ZB-H1']} of ZB-H1's step."
        )
    first = min(lost, key=lambda row: (row["P"], row["M"]))
    return (
        f"On the {network} network it gains nothing in {len(lost)} of {len(rows)} rows, the first with P = "
        f"{first['P']} and M = {first['M']}: the errors of a step take longer to send than its products to compute."
    )


def draw(panels: Sequence[tuple[str, Sequence[Done]]], path: Path, unit: str = "units") -> None:
    """Draw timelines below one another, on one scale.

    Args:
        panels: Titles, and what took place.
        path: The picture; its ending says the format.
        unit: Of time.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.patches import Patch

    stages = 1 + max(done.stage for _, panel in panels for done in panel)
    figure, axes = pyplot.subplots(
        len(panels), figsize=(11, len(panels) * (0.6 + 0.28 * stages)), sharex=True, squeeze=False, layout="constrained"
    )
    for (title, panel), axis in zip(panels, axes[:, 0], strict=True):
        bars: dict[tuple[int, str, float], list[tuple[float, float]]] = defaultdict(list)
        for done in panel:
            shade = 1.0 if done.step % 2 == 0 else 0.6
            bars[done.stage, done.kind, shade].append((done.start, done.end - done.start))
        for (stage, kind, shade), spans in bars.items():
            where = (stage - 0.42, 0.84)
            axis.broken_barh(spans, where, facecolor=COLOURS[kind], alpha=shade, edgecolor="white", linewidth=0.6)
        axis.set_title(title, loc="left", fontsize=9)
        axis.set_yticks(range(stages))
        axis.invert_yaxis()
        axis.set_ylabel("stage", fontsize=8)
    axes[-1, 0].set_xlabel(f"time, {unit}")
    kinds = [kind for kind in COLOURS if any(done.kind == kind for _, panel in panels for done in panel)]
    figure.legend(
        handles=[Patch(color=COLOURS[kind], label=f"{kind}: {MEANING[kind]}") for kind in kinds],
        loc="outside upper right",
        ncols=len(kinds),
        fontsize=8,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(
        {"svg.hashsalt": "timelines", "svg.fonttype": "none"}
    ):  # the same picture is the same file
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def picture(config: Config) -> None:
    """Two steps of every schedule, without a network."""
    assert config.figure is not None
    panels = []
    for name, schedule in SCHEDULES.items():
        run = simulate(name, config.stages, config.microbatches, times_for(name, config.stages, 0.0, config), steps=2)
        panels.append((f"{schedule.label}: {run.step_time:g} units a step", run.done))
    draw(panels, config.figure)


def main(config: Config) -> None:
    """Print the table, and draw."""
    from rich.console import Console
    from rich.table import Table

    from benchmarks.environment import save

    rows = table(config)
    columns = [name for name in rows[0] if not name.startswith(("held", "memory"))]
    shown = Table(*columns, title="Units of a step, where F is one", caption=where_it_ends(rows))
    held = Table("P", "M", *SCHEDULES, title="Microbatches that a stage holds, first to last (and in activations)")
    for line in rows:
        shown.add_row(*(str(line[name]) for name in columns))
        if line["network"] == "fast":
            cells = (f"{line[f'held, {s.label}']} ({line[f'memory, {s.label}']})" for s in SCHEDULES.values())
            held.add_row(str(line["P"]), str(line["M"]), *cells)
    Console(width=160).print(shown, held)
    if config.out is not None:
        save(config.out, "cpu", [{name: cell for name, cell in line.items() if "held" not in name} for line in rows])
        with config.out.with_suffix(".md").open("a", encoding="utf-8") as file:
            file.write(f"\n{where_it_ends(rows)}\n")
    if config.figure is not None:
        picture(config)


if __name__ == "__main__":
    from harness import cli

    cli.run(Config, main)
