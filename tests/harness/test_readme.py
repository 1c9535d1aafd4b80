"""The READMEs of the folders know what is in them."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("folder", ["harness", "reproduce"])
def test_the_readme_names_every_module(folder):
    text = (ROOT / folder / "README.md").read_text(encoding="utf-8")
    files = (path.relative_to(ROOT / folder) for path in (ROOT / folder).rglob("*.py"))
    modules = [path.as_posix() for path in files if path.name != "__init__.py"]
    assert [name for name in sorted(modules) if f"`{name}`" not in text] == []
