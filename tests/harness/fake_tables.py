"""A task's tables.py for the tests: runs that take no time, fail, or kill their process. Copied into a package."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.report import Figure, Section
from harness.tables import Cell, RunContext, Table
from harness.tables.results import make_result

VALUES = {"easy": (0.80, 0.82, 0.87), "other": (0.5, 0.5, 0.5)}


def run(cell: Cell, seed: int, context: RunContext) -> dict[str, Any]:
    """Leave a trace, then do what the preset is called."""
    with open(Path(os.environ["FAKE_TRACE"]), "a") as file:
        file.write(f"{cell.key} {cell.dataset} {cell.method} {seed} {context.scale} {os.getpid()}\n")
    if cell.key == "fails":
        raise ValueError("bad luck")
    if cell.key == "waits":
        time.sleep(60)
    if cell.key == "absent":
        raise UserError("the data of the test is not there. Fetch it.")
    if cell.key == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    value = float("nan") if cell.key == "diverges" else VALUES[cell.key.partition("+")[0]][seed]
    names = {"task": "fake", "model": "m", "dataset": cell.dataset, "method": cell.method, "seed": seed}
    return make_result(**names, metrics={"accuracy": value}, seconds=1.0, config={}, device="cpu")


def cell(preset: str, method: str, dataset: str = "cora", published: float | None = None) -> Cell:
    column = dataset.title()
    metric = "accuracy"
    return Cell(
        row=preset, column=column, method=method, key=preset, dataset=dataset, metric=metric, published=published
    )


def table(name: str, *cells: Cell) -> Table:
    return Table(
        name=name, title=f"Title of {name}", task="fake", unit="%", cells=cells, source="nowhere", run=run, scale=100.0
    )


TABLES = (
    table("good", cell("easy", "bp", published=81.5), cell("easy", "dfa"), cell("other", "bp", "citeseer", 70.0)),
    table(
        "bad", cell("easy", "bp"), cell("fails", "bp"), cell("dies", "bp"), cell("diverges", "bp"), cell("other", "bp")
    ),
    table("lacking", cell("easy", "bp"), cell("absent", "bp"), cell("absent", "dfa")),
    replace(table("long", cell("other", "shallow")), in_quick=False),
)


def sections(results: Path, context: RunContext) -> list[Section]:
    """What the fake task adds to the report: a picture of one pixel."""
    dot = bytes.fromhex(
        "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489"
        "0000000d49444154789c6360000002000001e221bc330000000049454e44ae426082"
    )
    return [Section("Own <section>", figures=(Figure("A dot & more", "very small", dot),))]
