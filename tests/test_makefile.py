"""`make help` lists what there is, and the environment that make builds knows the library from anywhere."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAKEFILE = ROOT / "Makefile"
STAMP = ROOT / ".venv" / "installed"


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_alone_lists_every_target_with_a_phrase():
    text = MAKEFILE.read_text(encoding="utf-8")
    [targets] = re.findall(r"^\.PHONY: (.*)$", text, flags=re.MULTILINE)
    told = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    listed = dict(line.split(maxsplit=1) for line in told.splitlines()[1:])
    assert listed.keys() == set(targets.split()) - {"test-sse", "test-avx2"}  # parts of test-isa
    assert max(map(len, told.splitlines())) <= 120


@pytest.mark.skipif(
    not STAMP.exists() or STAMP.stat().st_mtime < MAKEFILE.stat().st_mtime, reason="needs a .venv made by this Makefile"
)
def test_the_environment_of_make_imports_the_library_from_anywhere():
    command = [str(ROOT / ".venv/bin/python"), "-I", "-c", "import tinydfa; print(tinydfa.__file__)"]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).resolve() == ROOT / "tinydfa" / "__init__.py"


def test_the_interpreters_that_make_accepts_are_those_of_the_package():
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    [(first, last)] = re.findall(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', pyproject)
    assert f"(3, {first}) <= v <= (3, {int(last) - 1})" in MAKEFILE.read_text(encoding="utf-8")
    assert int(first) <= sys.version_info.minor < int(last)
