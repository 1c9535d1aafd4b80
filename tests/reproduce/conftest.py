"""A project of its own for a test, and one where the command has run, for those of a file."""

import subprocess
from pathlib import Path

import pytest

from tests.reproduce.project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, subprocess.CompletedProcess]:
    project = Project(tmp_path_factory.mktemp("finished"))
    return project, project("good", "--seeds", "3", "--jobs", "2", "--out", "results")
