"""What the site holds beside docs/: READMEs as pages, pictures of results/, and a page a rule. A hook of mkdocs.

Links are written for the files as they lie in the project. Here they are turned to the site's pages, and a link to a
file that the site does not have becomes plain text.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from harness.methods import label
from harness.tables import Table
from harness.tables.aggregate import lines_of
from reproduce.report import summary
from reproduce.scoreboard import command
from reproduce.scoreboard.columns import Column
from reproduce.scoreboard.page import Scores, quality
from reproduce.scoreboard.summary import Line, Score
from reproduce.tasks import discover
from tinydfa.rules import registered

Board = tuple[list[Column], list[str], Scores, list[Line]]  # see `reproduce.scoreboard.command.board`
ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"
FOLDERS = ("tinydfa", "graphs", "recsys", "nlp", "nerf", "vision", "benchmarks")
PICTURES = {
    "results/benchmarks/memory.png": "measured/memory.png",
    "results/benchmarks/pipeline_loss.png": "measured/pipeline_loss.png",
    "results/learned/fitted-alignment.png": "measured/fitted-alignment.png",
    "results/scoreboard.png": "measured/scoreboard.png",
}
SCOREBOARD = "measured/scoreboard.md"
SHOWN = PICTURES | {"results/scoreboard.md": SCOREBOARD}  # files of results/ that the site has, elsewhere
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?\)")
WHEN = {
    "bp": "As the measure of every other rule.",
    "shallow": "As the least that a rule must beat.",
    "dfa": "First. It trains in constant memory and over stages that do not wait; most others begin with it.",
    "sdfa": "Where the device in the place of F takes signs alone.",
    "tdfa": "Where the device takes 1, 0 and -1 alone.",
    "drtp": "With class targets: layers learn before the output is known. For hardware that cannot wait.",
    "fa": "Where a backward pass is allowed and only the transposed weights are not.",
    "usf": "As `fa`, with the signs of the weights known: nearer to backpropagation, also in convolutional networks.",
    "brsf": "As `usf`, with fresh magnitudes every pass.",
    "frsf": "As `usf`, with fixed magnitudes.",
    "dkp": "Where DFA is too far behind and nothing but e and the layers' values may be used.",
    "ebd": "As `dkp`, without a rate for the feedback.",
    "fitted": "Where a rare pass of backpropagation is allowed, and the error is at most 4,096 wide.",
    "fdfa": "Where backpropagation is not allowed at all, with many rows a batch.",
    "kp": "As `fa`, where the feedback may take the steps that the weights take: it ends near backpropagation.",
    "grape": "As `fdfa`, where the size of F has no meaning but its direction has.",
    "fitted_forward": "To see whether it matters which errors go with which inputs.",
    "las": "Where the error becomes small early, or nothing but a layer and the output may be looked at.",
    "les": "With class targets, where no layer is to hear of another one at all: nothing comes from the output.",
    "calibrated": "To see what rare passes of backpropagation bring by themselves, under any rule that cuts.",
}


def on_config(config: Any) -> Any:
    """Put a page a rule in the place of "rules" in the navigation."""
    pages = ["rules/index.md", *({label(name): f"rules/{name}.md"} for name in registered())]
    config.nav = [{"Rules": pages} if "Rules" in entry else entry for entry in config.nav]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages and pictures that are not in docs/."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).glob("*.md")):
            files.append(File.generated(config, f"{folder}/{path.name}", abs_src_path=str(path)))
    for path, shown in PICTURES.items():
        files.append(File.generated(config, shown, abs_src_path=str(ROOT / path)))
    files.append(File.generated(config, SCOREBOARD, content=scoreboard()))
    tables = [(table, lines_of(table, RESULTS, "paper")) for table in discover().values()]
    board = command.board(RESULTS)
    files.append(File.generated(config, "rules/index.md", content=overview()))
    for name in registered():
        files.append(File.generated(config, f"rules/{name}.md", content=rule_page(name, tables, board)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links to files of the project into links to pages of the site."""
    here = page.file.src_uri
    source = here if here.startswith(FOLDERS) else f"docs/{here}"

    def turned(match: re.Match[str]) -> str:
        mark, text, target, anchor = match[1], match[2], match[3], match[4] or ""
        path = os.path.normpath(os.path.join(os.path.dirname(source), target))
        shown = SHOWN.get(path, path.removeprefix("docs/"))
        if files.get_file_from_path(shown) is None:
            return text
        return f"{mark}[{text}]({os.path.relpath(shown, os.path.dirname(here) or '.')}{anchor})"

    return markdown if here.startswith("rules/") else LINK.sub(turned, markdown)


def overview() -> str:
    """All rules: what a hidden layer receives, and a link to the page of each."""
    rows = [f"| [`{name}`]({name}.md) | {label(name)} | {formula(name)} |" for name in registered()]
    letters = "e is the gradient of the loss at the output, `[B, c]`, F the feedback, `[c, D]`, d the width of a layer."
    return (
        "\n".join(
            [f"# Rules\n\n{letters}\n", "| name | label | what a hidden layer receives |", "|---|---|---|", *rows]
        )
        + "\n"
    )


def formula(name: str) -> str:
    """What a hidden layer receives by a rule, as the library's README says it.

    Raises:
        KeyError: it does not say.
    """
    text = (ROOT / "tinydfa" / "README.md").read_text(encoding="utf-8")
    table = text.partition("## What a hidden layer receives")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", table, flags=re.MULTILINE))[name]


def scoreboard() -> str:
    """The page of the scoreboard."""
    text = (RESULTS / "scoreboard.md").read_text(encoding="utf-8")
    return f"# Scoreboard\n\n![Quality kept against the time of a step.](scoreboard.png)\n\n{text}"


def rule_page(name: str, tables: list[tuple[Table, list[dict[str, Any]]]], board: Board) -> str:
    """The page of a rule: formula, source, when to use it, what it scored, its options."""
    kind = registered()[name]
    parts = [f"# {kind.label}", f'`--method {name}`, or `tinydfa.attach(model, "{name}")`.', kind.explained]
    parts += ["## What a hidden layer receives", f"{formula(name)}\n"]
    parts += ["## When to use it", WHEN[name]]
    parts += ["## Source", linked(kind.source)] if kind.source else []
    parts += ["## Scores", *([*board_scores(name, board), *scores(name, tables)] or ["No table has it yet."])]
    where = f"{kind.__module__}.{kind.__qualname__}"
    parts += ["## In the library", f"::: {where}\n    options:\n      heading_level: 3\n      members: false"]
    return "\n\n".join(part for part in parts if part) + "\n"


def linked(source: str) -> str:
    """A source with its arXiv number as a link."""
    return re.sub(r"arXiv (\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", inspect.cleandoc(source)) + "."


def board_scores(name: str, board: Board) -> Iterator[str]:
    """What it came to on every model of the scoreboard."""
    columns, _, found, _ = board
    rows = [
        f"| {column.model}, {column.title} | {column.unit} | {quality(column, score).replace('<br>', ', ')} |"
        for column in columns
        if (score := found[column.name].get(name, Score())).mean is not None
    ]
    if rows:
        yield (
            "On the [scoreboard](../measured/scoreboard.md): the share of the way from shallow training (0 %) to "
            "backpropagation (100 %), the score itself, and its seeds. Short runs, tuned by one grid."
        )
        yield "\n".join(["| model | unit | way and score |", "|---|---|---:|", *rows])


def scores(name: str, tables: list[tuple[Table, list[dict[str, Any]]]]) -> Iterator[str]:
    """Its mean in every table that has it, beside backpropagation's and shallow training's over the same cells."""
    rows = []
    for table, lines in tables:
        methods = list(dict.fromkeys(["bp", name, "shallow"]))
        found = summary.compare([(table, lines)], methods)
        if found is not None and name in found.means:
            means = [found.text(method) if method in found.means else "" for method in methods]
            link = f"[{table.title}](../{table.task}/RESULTS.md#{table.name})"
            rows.append(f"| {link} | {table.unit} | {found.cells} | {' | '.join(means)} |")
    if not rows:
        return
    heads = " | ".join(label(method) for method in dict.fromkeys(["bp", name, "shallow"]))
    yield "In the tables of the tasks: means over the cells that all of these rules have, from the committed runs."
    rule = "|---|---|---:|" + "---:|" * heads.count(" | ") + "---:|"
    yield "\n".join([f"| table | unit | cells | {heads} |", rule, *rows])
