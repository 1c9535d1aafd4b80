"""No file or folder of the library imports another that imports it, not even for types; no folder holds too many."""

import ast
import runpy
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import torch

import tinydfa
from tinydfa.memory import choice

FOLDER = Path(tinydfa.__file__).parent
FILES = {
    ".".join((FOLDER.name, *path.relative_to(FOLDER).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in FOLDER.rglob("*.py")
}


def imported(path: Path) -> set[str]:
    """The library's files that a file imports anywhere in it, under TYPE_CHECKING and inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in FILES else node.module for name in names}
    return found & FILES.keys()


GRAPH = {name: imported(path) - {name} for name, path in FILES.items()}
FOLDERS = {path.parent.name for path in FOLDER.glob("*/*.py")}
MOST = 12  # files of a folder, beside its __init__.py


def refuse_circle(graph: dict[str, set[str]]) -> None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(f"a circle of imports: {' -> '.join(error.args[1])}") from None


def folder_of(name: str) -> str:
    """The folder that a file stands in; of a file at the top the file itself."""
    top, _, rest = name.partition(".")
    first = rest.partition(".")[0]
    return f"{top}.{first}" if first in FOLDERS else name


def test_no_file_imports_itself_through_others():
    assert GRAPH["tinydfa.head"] > {"tinydfa.node", "tinydfa.points"}  # the graph is not empty
    refuse_circle(GRAPH)


def test_no_folder_imports_itself_through_others():
    graph: dict[str, set[str]] = {}
    for name, files in GRAPH.items():
        graph.setdefault(folder_of(name), set()).update(folder_of(file) for file in files)
    assert graph["tinydfa.attaching"] > {"tinydfa.memory", "tinydfa.head"}
    refuse_circle({folder: others - {folder} for folder, others in graph.items()})


def test_folders_stay_small():
    sizes = {folder: len([p for p in folder.glob("*.py") if p.name != "__init__.py"]) for folder in FOLDER.rglob("*/")}
    assert {folder.name: size for folder, size in sizes.items() if size > MOST} == {}


def test_a_torch_whose_compiler_takes_no_reason_is_enough(monkeypatch):
    disable = torch.compiler.disable
    monkeypatch.setattr(torch.compiler, "disable", lambda fn=None, recursive=True: disable(fn, recursive))
    names = runpy.run_path(choice.__file__)  # as torch 2.6 has it
    assert callable(names["Memory"].begin)
