"""The README of the folder knows what is in it."""

from pathlib import Path

import harness

FOLDER = Path(harness.__file__).parent


def test_the_readme_names_every_module():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    modules = [path.name for path in FOLDER.glob("*.py") if path.name != "__init__.py"]
    assert [name for name in sorted(modules) if f"`{name}`" not in text] == []
