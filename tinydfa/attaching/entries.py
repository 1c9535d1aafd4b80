"""Entries of what a module returns: a tensor somewhere in tuples, lists and mappings, named by keys and numbers.

"lstm[1][0]"        the last hidden state of an LSTM: entry 0 of entry 1 of what the module `lstm` returns
"[pooler_output]"   an entry of what the model itself returns
"""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from tinydfa.errors import PointError

Keys = tuple[int | str, ...]


def parse(name: str) -> tuple[str, Keys]:
    """A module's name (or pattern) and the keys behind it.

    Raises:
        PointError: brackets that do not pair up.

    Example:
        >>> parse("encoder.lstm[1][0]"), parse("[pooler_output]"), parse("top")
        (('encoder.lstm', (1, 0)), ('', ('pooler_output',)), ('top', ()))
    """
    module, bracket, rest = name.partition("[")
    keys = re.findall(r"\[([^\[\]]+)\]", bracket + rest)
    if "".join(f"[{key}]" for key in keys) != bracket + rest:
        raise PointError(f"{name!r} is no entry of an output. Write it like 'lstm[1][0]' or '[pooler_output]'.")
    return module, tuple([int(key) if re.fullmatch(r"-?\d+", key) else key for key in keys])


def spelled(keys: Keys) -> str:
    """Keys as they are written behind a module's name."""
    return "".join([f"[{key}]" for key in keys])


def tensors_in(output: Any, before: Keys = ()) -> Iterator[tuple[Keys, Tensor]]:
    """Floating-point tensors anywhere in an output, with the keys that lead there, in order."""
    if isinstance(output, Tensor):
        if torch.is_floating_point(output):
            yield before, output
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from tensors_in(value, (*before, key))
    elif isinstance(output, tuple | list):
        for number, value in enumerate(output):
            yield from tensors_in(value, (*before, number))
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        for field in dataclasses.fields(output):
            yield from tensors_in(getattr(output, field.name, None), (*before, field.name))


def get(output: Any, keys: Keys, where: str) -> Tensor:
    """The tensor at an entry.

    Raises:
        PointError: there is none; the message lists those that are there.
    """
    found = output
    for key in keys:
        try:
            found = found[key]
        except (KeyError, IndexError, TypeError):
            found = getattr(found, key, None) if isinstance(key, str) else None
    if isinstance(found, Tensor):
        return found
    there = ", ".join([spelled(place) or "the whole of it" for place, _ in tensors_in(output)]) or "none"
    raise PointError(f"{where} has no tensor at {spelled(keys)}. Tensors are at: {there}.")


def put(output: Any, keys: Keys, tensor: Tensor) -> Any:
    """`output` with another tensor at an entry; what holds it is copied, so that nobody else's object changes."""
    if not keys:
        return tensor
    key, *rest = keys
    if isinstance(output, Mapping):
        changed: Any = copy.copy(output)
        changed[key] = put(output[key], tuple(rest), tensor)
        return changed
    if not isinstance(output, tuple | list):  # an object with attributes
        changed = copy.copy(output)
        value = put(getattr(output, str(key)), tuple(rest), tensor)
        try:
            setattr(changed, str(key), value)
        except dataclasses.FrozenInstanceError:  # ours to change: it is a copy
            object.__setattr__(changed, str(key), value)
        return changed
    values = list(output)
    if isinstance(key, str):
        key = type(output)._fields.index(key)  # type: ignore[union-attr]
    values[key] = put(values[key], tuple(rest), tensor)
    return type(output)(*values) if hasattr(output, "_fields") else type(output)(values)
