"""The tasks that are there: their tables, and what they add to the report. They are imported by name."""

import importlib
import importlib.util
from dataclasses import replace
from pathlib import Path

from harness.report import Section
from harness.tables import RunContext, Table

TASKS = ("graphs", "recsys", "nlp", "nerf", "vision")


def discover() -> dict[str, Table]:
    """The tables of every task that is there, by name."""
    found: dict[str, Table] = {}
    for task in TASKS:
        if importlib.util.find_spec(task) is None or importlib.util.find_spec(f"{task}.tables") is None:
            continue
        for table in importlib.import_module(f"{task}.tables").TABLES:
            if table.name in found:
                raise ValueError(f"two tables are called {table.name}: in {found[table.name].task} and in {task}")
            found[table.name] = table
    return found


def task_sections(task: str, folder: Path, context: RunContext, troubles: list[str], label: str) -> list[Section]:
    """What a task adds to the report; a task that fails here costs the report its pictures, not the tables."""
    if importlib.util.find_spec(f"{task}.report") is None:
        return []
    try:
        own = importlib.import_module(f"{task}.report").sections(folder, context)
    except Exception as error:
        troubles.append(f"FAILED the pictures of {task} in the report ({label}): {type(error).__name__}: {error}")
        return []
    return [replace(section, title=f"{section.title} ({label})") for section in own]
