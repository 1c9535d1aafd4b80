"""Presets by name, as `--preset` takes them."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from harness.errors import UserError
from harness.methods import named

Preset = TypeVar("Preset")
FEW = 30  # presets that a message lists in full
VERBS = {"method": "trains by", "model": "is about"}  # verbs for messages; for other settings a preset "has"


def named_preset(presets: Mapping[str, Preset], name: str, **given: Any) -> Preset:
    """The preset called `name`.

    Args:
        presets: All of a task, by name.
        name: What `--preset` says: a preset, or a preset by another method, such as ``gcn_dfa+drtp``.
        **given: Other options by the names of the preset's fields; None where the option was left out.

    Raises:
        UserError: there is no such preset, or an option says something else than the preset.

    Example:
        >>> from types import SimpleNamespace
        >>> named_preset({"a": SimpleNamespace(model="gcn")}, "a", model="gat")
        Traceback (most recent call last):
            ...
        harness.errors.UserError: --preset a is about gcn and --model says gat. Leave one of them out.
    """
    of_preset, plus, method = name.partition("+")
    if of_preset not in presets:
        raise UserError(f"--preset {name}: no such preset. {nearest(of_preset, presets)}.")
    preset = presets[of_preset]
    if plus:
        preset = dataclasses.replace(preset, method=named(method))  # type: ignore[type-var]
    for option, value in given.items():
        own = getattr(preset, option)
        if value not in (None, own):
            verb = VERBS.get(option, f"has {option}")
            raise UserError(f"--preset {name} {verb} {own} and --{option} says {value}. Leave one of them out.")
    return preset


def nearest(name: str, known: Iterable[str]) -> str:
    """The names most like `name`, in words; all of them where they are few.

    Example:
        >>> nearest("gcn_dfq", ["gcn_dfa", "gcn_bp"])
        'There are gcn_dfa, gcn_bp'
    """
    names = list(known)
    if len(names) <= FEW:
        return f"There are {', '.join(names)}"
    close = difflib.get_close_matches(name, names, n=5, cutoff=0)
    return f"The nearest of {len(names)} are {', '.join(close)}"
