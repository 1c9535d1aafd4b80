"""No file of the library imports another that imports it, not even for types."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import tinydfa

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


def test_no_file_imports_itself_through_others():
    graph = {name: imported(path) - {name} for name, path in FILES.items()}
    assert graph["tinydfa.head"] > {"tinydfa.node", "tinydfa.points"}  # the graph is not empty
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(f"a circle of imports: {' -> '.join(error.args[1])}") from None
