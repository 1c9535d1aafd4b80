"""Doing something when a module is imported, by whomever, without importing it."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

Act = Callable[[ModuleType], None]


def on_import(name: str, act: Act) -> None:
    """Call ``act(module)`` once the module `name` is there; at once if it is."""
    if name in sys.modules:
        act(sys.modules[name])
        return
    if not any(isinstance(finder, Arrivals) for finder in sys.meta_path):
        sys.meta_path.insert(0, Arrivals())
    next(finder for finder in sys.meta_path if isinstance(finder, Arrivals)).waiting[name] = act


class Arrivals(MetaPathFinder):
    """Lets the other finders find a module that is waited for, and acts when it has run."""

    def __init__(self) -> None:
        self.waiting: dict[str, Act] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        act = self.waiting.pop(fullname, None)
        if act is None:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = Arriving(spec.loader, act)
                return spec
        return None


class Arriving(Loader):
    """Another loader, with something to do at the end."""

    def __init__(self, loader: Any, act: Act) -> None:
        self.loader, self.act = loader, act

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        found: ModuleType | None = self.loader.create_module(spec)
        return found

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = module.__loader__ = self.loader  # as if it had been found without us
        self.loader.exec_module(module)
        self.act(module)


def around(
    kind: type, method: str, *, before: Callable[..., None] | None = None, after: Callable[..., None] | None = None
) -> None:
    """Call `before` and `after` with the arguments of a method, whenever it is called; once, however often this is."""
    plain = getattr(kind, method)
    if getattr(plain, "tinydfa", False):
        return

    @functools.wraps(plain)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        if before is not None:
            before(self, *args, **kwargs)
        result = plain(self, *args, **kwargs)
        if after is not None:
            after(self, *args, **kwargs)
        return result

    vars(wrapper)["tinydfa"] = True
    setattr(kind, method, wrapper)
