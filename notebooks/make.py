"""Make the notebooks of examples/: python notebooks/make.py

A notebook has the statements of the example in its order: the docstring as text, then a cell a paragraph. It holds no
output. A test fails where a notebook differs from its example.
"""

from __future__ import annotations

import ast
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parent.parent
TITLES = {
    "own_model": "# Your own model\n\nThe guide is [docs/own-model.md](../docs/own-model.md).",
    "own_rule": "# Your own rule\n\nThe guide is [docs/own-rule.md](../docs/own-rule.md).",
}
MAIN = 'if __name__ == "__main__":\n    main()'


def paragraphs(code: str) -> list[str]:
    """The top-level statements of a program without its docstring; those with no blank line between stay together.

    Example:
        >>> paragraphs('"Title."\\n\\nimport os\\nimport re\\n\\n\\ndef f():\\n    a = 1\\n\\n    return a\\n')
        ['import os\\nimport re', 'def f():\\n    a = 1\\n\\n    return a']
    """
    lines = code.splitlines()
    found: list[list[str]] = []
    end = 0
    for statement in ast.parse(code).body[1:]:
        start = min([statement.lineno, *(d.lineno for d in getattr(statement, "decorator_list", ()))]) - 1
        last = statement.end_lineno or statement.lineno
        if found and start == end:
            found[-1] += lines[start:last]
        else:
            found.append(lines[start:last])
        end = last
    return ["\n".join(part) for part in found]


def notebook(name: str) -> str:
    """The notebook of an example, as JSON."""
    code = (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8")
    cells = [new_markdown_cell(TITLES[name])]
    cells += [new_code_cell("main()" if part == MAIN else part) for part in paragraphs(code)]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"  # else random
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    made = new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})
    nbformat.validate(made)
    return nbformat.writes(made) + "\n"


def main() -> None:
    """Write them all."""
    for name in TITLES:
        path = ROOT / "notebooks" / f"{name}.ipynb"
        path.write_text(notebook(name), encoding="utf-8")
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
