"""What an installed tinydfa is made of, and that the files which name its version and its Python agree."""

import re
import tomllib
from pathlib import Path

import tinydfa

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_every_folder_of_the_library_is_packed():
    folders = {path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in ROOT.glob("tinydfa/**/*.py")}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == folders


def test_every_file_that_names_the_version_names_the_same():
    newest = re.search(r"^## (\d\S*) - (\d{4}-\d\d-\d\d)$", text("CHANGELOG.md"), flags=re.MULTILINE)
    assert newest is not None
    assert newest[1] == tinydfa.__version__
    assert f"\nversion: {newest[1]}\n" in text("CITATION.cff")
    assert f"\ndate-released: {newest[2]}\n" in text("CITATION.cff")


def test_every_file_that_names_pythons_names_those_that_the_package_takes():
    least, below = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", PROJECT["project"]["requires-python"]).groups()
    first, last = int(least), int(below) - 1
    assert f"Python 3.{first} to 3.{last} " in text("README.md")
    classified = {f"Programming Language :: Python :: 3.{minor}" for minor in range(first, last + 1)}
    assert classified == {it for it in PROJECT["project"]["classifiers"] if ":: Python :: 3." in it}
    assert f"need Python 3.{first} to 3.{last} " in text("Makefile")
    assert PROJECT["tool"]["mypy"]["python_version"] == f"3.{first}"
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py3{first}"


def test_the_exact_pins_are_within_what_the_package_asks_for():
    pins = dict(re.findall(r"^(\w[\w-]*)==(\d+(?:\.\d+)*)", text("requirements.txt"), flags=re.MULTILINE))
    for need in PROJECT["project"]["dependencies"]:
        name, least = need.split(">=")
        assert tuple(map(int, pins[name].split("."))) >= tuple(map(int, least.split(".")))
