"""The README's code runs as it stands there."""

import re
from pathlib import Path

import pytest

from tinydfa import attachment_of

ROOT = Path(__file__).resolve().parent.parent


def python_blocks(path: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_readme_trains_a_model_of_ones_own(capsys):
    (code,) = python_blocks(ROOT / "README.md")
    names: dict = {}
    exec(code, names)
    assert names["attachment"] is attachment_of(names["model"])
    assert names["attachment"].points == {"1": 64, "3": 64}
    assert "nothing to change" in capsys.readouterr().out


def test_the_readme_shows_no_more_than_ten_statements():
    (code,) = python_blocks(ROOT / "README.md")
    statements = [line for line in code.splitlines() if line and not line.startswith(("import", "from"))]
    assert len(statements) <= 10


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-cuda.txt"])
def test_every_requirement_is_pinned_exactly(name):
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    required = [line for line in lines if line.strip() and not line.startswith(("#", "-"))]
    assert required
    assert all("==" in line for line in required)
