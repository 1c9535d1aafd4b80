"""How the folders are built: what may import what, no circle of files, and no folder too long to be said aloud."""

import ast
from collections import Counter
from functools import cache
from pathlib import Path

import networkx
import pytest

ROOT = Path(__file__).resolve().parent.parent
TASKS = ("graphs", "nerf", "nlp", "recsys", "vision")
FOLDERS = ("tinydfa", "harness", *TASKS, "reproduce", "benchmarks", "examples")
MAY_IMPORT = {  # besides itself
    "tinydfa": (),
    "harness": ("tinydfa",),
    **dict.fromkeys(TASKS, ("harness", "tinydfa")),
    "reproduce": ("harness", "tinydfa", *TASKS),
    "benchmarks": ("harness", "reproduce", "tinydfa", *TASKS),
    "examples": ("tinydfa",),
}
LARGEST = 13  # Python files in a folder
# What is not so yet. These lists get shorter, never longer.
STILL_LONG = {"benchmarks": 27}
STILL_UPWARD = {("reproduce.scoreboard.cost", "benchmarks.allocations")}


@cache
def files() -> dict[str, Path]:
    """The Python files of the project's folders by the name of their module."""
    found = {}
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(module: str, path: Path) -> set[str]:
    """The project's modules that a file imports anywhere: at its top, inside functions, for types alone."""
    found: set[str] = set()
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {name if (name := f"{base}.{alias.name}") in files() else base for alias in node.names}
    return {name for name in found if name in files() and name != module}


@cache
def graph() -> networkx.DiGraph:
    """Files as nodes, imports as arrows."""
    arrows = networkx.DiGraph()
    arrows.add_nodes_from(files())
    arrows.add_edges_from((module, other) for module, path in files().items() for other in imported(module, path))
    return arrows


def test_no_files_import_each_other_in_a_circle():
    assert [sorted(circle) for circle in networkx.strongly_connected_components(graph()) if len(circle) > 1] == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_imports_only_what_lies_below_it(folder):
    allowed = {folder, *MAY_IMPORT[folder]}
    wrong = [
        (m, other) for m, other in graph().edges if m.split(".")[0] == folder and other.split(".")[0] not in allowed
    ]
    assert set(wrong) <= STILL_UPWARD


def test_no_folder_holds_more_files_than_can_be_said_aloud():
    counts = Counter(path.parent.relative_to(ROOT).as_posix() for path in files().values())
    assert {folder: count for folder, count in counts.items() if count > LARGEST} == STILL_LONG


def test_an_import_is_seen_wherever_it_stands(tmp_path):
    path = tmp_path / "a.py"
    path.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from harness.tables import Cell\n"
        "def f():\n    import harness.cli\n    from harness.tables import aggregate\n    from .presets import nearest\n"
    )
    assert imported("harness.a", path) == {
        "harness.tables",
        "harness.cli",
        "harness.tables.aggregate",
        "harness.presets",
    }
