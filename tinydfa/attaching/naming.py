"""Finding submodules by name or pattern, and what to say when there are none."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from torch import nn

from tinydfa.errors import PointError


def find_modules(model: nn.Module, patterns: Sequence[str]) -> dict[str, nn.Module]:
    """Submodules of `model` whose names match, in the order of the model.

    ``*`` stands for anything between two dots, ``**`` for anything, ``?`` for one character.

    Raises:
        PointError: A pattern matches nothing; the message lists names that do exist.
    """
    modules = {name: module for name, module in model.named_modules(remove_duplicate=False) if name}
    found: set[str] = set()
    for pattern in patterns:
        matches = [name for name in modules if matcher(pattern).fullmatch(name)]
        if not matches:
            raise PointError(
                f"points: {pattern!r} matches no submodule of {type(model).__name__}. {suggest(pattern, modules)}"
            )
        found.update(matches)
    matched: dict[nn.Module, str] = {}
    for name, module in modules.items():
        if name in found:
            matched.setdefault(module, name)  # a module may stand in several places, under several names
    return {name: module for module, name in matched.items()}


def matcher(pattern: str) -> re.Pattern[str]:
    """A regular expression for a dotted pattern."""
    parts = re.split(r"(\*\*|\*|\?)", pattern)
    meaning = {"**": ".*", "*": "[^.]*", "?": "[^.]"}
    return re.compile("".join(meaning.get(part, re.escape(part)) for part in parts))


def suggest(name: str, names: Sequence[str] | dict[str, nn.Module]) -> str:
    """One sentence with the names nearest to `name`."""
    near = difflib.get_close_matches(name, list(names), n=4, cutoff=0.5) or list(names)[:8]
    return f"Names near it: {', '.join(map(repr, near))}." if near else "The model has no submodules."


def matching(name: str, labels: Sequence[str], argument: str) -> list[str]:
    """The labels of feedback points that a name or pattern means.

    Raises:
        PointError: none.
    """
    found = [name] if name in labels else [label for label in labels if matcher(name).fullmatch(label)]
    if not found:
        raise PointError(f"{argument} names {name!r}, which is no feedback point. {suggest(name, labels)}")
    return found


def no_points(model: nn.Module, rule: str) -> str:
    """What to say of a model for which no points were given and which has none of its own."""
    children = ", ".join(repr(name) for name, _ in model.named_children()) or "none"
    return (
        f"{rule} needs feedback points: {type(model).__name__} has no DFALayer, and none were named. Pass "
        f'points=["layers.*"], say; its children are {children}; or place tinydfa.DFALayer() in its forward.'
    )
