"""Finding a rule by name, by class, as an object, or in a file of the user's."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from tinydfa.errors import OptionError, UnknownMethodError
from tinydfa.rules.base import Rule

BY_NAME: dict[str, type[Rule]] = {}  # filled by `tinydfa.rules`


def registered() -> dict[str, type[Rule]]:
    """The library's rules by name."""
    return dict(BY_NAME)


def find_rule(rule: Rule | type[Rule] | str) -> Rule:
    """The rule that is meant by an object, a class, a registered name, or ``"file.py:Class"``.

    A name may have options after it, as the class takes them.

    Raises:
        UnknownMethodError: There is none of that name; the message lists the names that exist.
        OptionError: The rule has no such option, or the option makes no sense.

    Example:
        >>> from tinydfa.rules import SignDFA
        >>> find_rule("sdfa"), find_rule(SignDFA).name
        (SignDFA(), 'sdfa')
        >>> find_rule("tdfa(threshold=0.1)")
        TernaryDFA(threshold=0.1)
    """
    if isinstance(rule, Rule):
        return rule
    if isinstance(rule, str):
        name, options = split_options(str(rule))
        return _made(_class_called(name), options)
    if isinstance(rule, type) and issubclass(rule, Rule):
        return _made(rule, {})
    raise UnknownMethodError(f"{rule!r} is no rule: it does not derive from tinydfa.Rule. {_choices()}")


def split_options(text: str) -> tuple[str, dict[str, Any]]:
    """A name, and the options in brackets after it.

    Raises:
        OptionError: What stands in the brackets is no list of options.

    Example:
        >>> split_options("fitted(exact_every=50)")
        ('fitted', {'exact_every': 50})
    """
    name, bracket, rest = text.partition("(")
    if not bracket or not rest.endswith(")"):
        return text, {}
    try:
        call = ast.parse(f"rule({rest}", mode="eval").body
        assert isinstance(call, ast.Call)
        assert not call.args
        return name, {str(option.arg): ast.literal_eval(option.value) for option in call.keywords}
    except (SyntaxError, ValueError, AssertionError):
        raise OptionError(f"{text}: options are written as in fitted(exact_every=50, memory=0.5).") from None


def _made(kind: type[Rule], options: dict[str, Any]) -> Rule:
    try:
        return kind(**options)
    except TypeError as error:
        if options:
            known = ", ".join(kind().options) or "none"
            raise OptionError(f"{kind.__name__} has no such options ({error}). It has: {known}.") from error
        raise UnknownMethodError(
            f"the rule {kind.__name__} cannot be made without arguments ({error}). Give its options defaults, or pass "
            "an object."
        ) from error


def _class_called(name: str) -> type[Rule]:
    if name in BY_NAME:
        return BY_NAME[name]
    path, colon, class_name = name.rpartition(":")
    if colon and path.endswith(".py"):
        return _class_in(path, class_name)
    raise UnknownMethodError(f"unknown method {name!r}. {_choices()}")


def _choices() -> str:
    return f"Choose one of: {', '.join(BY_NAME)}; or a rule of your own: file.py:Class."


def _class_in(path: str, class_name: str) -> type[Rule]:
    """The rule `class_name` of a file of the user's."""
    module = _module(Path(path).expanduser())
    kinds = {name: kind for name, kind in vars(module).items() if isinstance(kind, type) and issubclass(kind, Rule)}
    if class_name not in kinds:
        own = [name for name, kind in kinds.items() if kind.__module__ == module.__name__]
        there = f"It has {', '.join(own)}" if own else "It has no class that derives from tinydfa.Broadcast"
        raise UnknownMethodError(f"{path} has no rule called {class_name!r}. {there}.")
    return kinds[class_name]


def _module(path: Path) -> ModuleType:
    """The file as a module, run once however often it is asked for."""
    if not path.is_file():
        raise UnknownMethodError(f"there is no file {str(path)!r} to take a rule from. Write path/to/file.py:Class.")
    name = f"_rules_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UnknownMethodError(f"{path} cannot be run ({type(error).__name__}: {error}). Mend it first.") from error
    return module
