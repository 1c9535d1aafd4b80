"""A project with one task of two tables, to run the command in."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


FAKE = ROOT / "tests" / "harness" / "fake_tables.py"


class Project:
    """A copy of reproduce/ with one task, `fake`, standing where `graphs` is looked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.trace = folder, folder / "trace.txt"
        shutil.copytree(ROOT / "reproduce", folder / "reproduce", ignore=shutil.ignore_patterns("__pycache__"))
        tasks = folder / "reproduce" / "tasks.py"
        text = tasks.read_text()
        changed = re.sub(r"^TASKS = .*$", 'TASKS = ("fake", "absent")', text, flags=re.MULTILINE)
        assert changed != text
        tasks.write_text(changed)
        (folder / "fake").mkdir()
        (folder / "fake" / "__init__.py").touch()
        shutil.copy(FAKE, folder / "fake" / "tables.py")
        (folder / "fake" / "report.py").write_text("from fake.tables import sections as sections\n")
        self.trace.touch()

    @classmethod
    def at(cls, folder: Path) -> "Project":
        """The one that is in a folder already."""
        project = cls.__new__(cls)
        project.folder, project.trace = folder, folder / "trace.txt"
        return project

    def start(self, *arguments: str) -> subprocess.Popen:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "FAKE_TRACE": str(self.trace), "COLUMNS": "200"}
        command = [sys.executable, "-W", "error", "-m", "reproduce", *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=self.folder, env=environment, stdout=pipe, stderr=pipe, text=True)

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess:
        with self.start(*arguments) as process:
            output, complaint = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, output, complaint)

    def runs(self) -> list[str]:
        return [" ".join(line.split()[:-1]) for line in self.trace.read_text().splitlines()]

    def processes(self) -> set[str]:
        return {line.split()[-1] for line in self.trace.read_text().splitlines()}
