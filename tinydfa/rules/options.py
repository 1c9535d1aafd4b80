"""Options of rules: what makes no sense is refused where it is written."""

from __future__ import annotations

import math

from tinydfa.errors import OptionError


def whole(rule: object, name: str, value: object, least: int) -> None:
    """Refuse what is no whole number, or one below `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise OptionError(f"{_of(rule, name)} is a whole number, at least {least}; got {value!r}.")


def share(rule: object, name: str, value: object) -> None:
    """Refuse what is not in [0, 1)."""
    if not _is_number(value) or not 0 <= value < 1:  # type: ignore[operator]
        raise OptionError(f"{_of(rule, name)} is a share, at least 0 and below 1; got {value!r}.")


def positive(rule: object, name: str, value: object) -> None:
    """Refuse what is no finite number above 0."""
    if not _is_number(value) or not 0 < value < math.inf:  # type: ignore[operator]
        raise OptionError(f"{_of(rule, name)} is a number above 0; got {value!r}.")


def switch(rule: object, name: str, value: object) -> None:
    """Refuse what is neither True nor False."""
    if not isinstance(value, bool):
        raise OptionError(f"{_of(rule, name)} is True or False; got {value!r}.")


def _of(rule: object, name: str) -> str:
    return f"{type(rule).__name__}: {name}"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
