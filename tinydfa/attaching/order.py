"""Hooks of an attachment stay the last of their modules, also when other hooks are set later.

A hook that is set after `attach` (to keep a gradient, to change an output, by fully_shard or tensor parallelism) then
meets what the module returns, with its graph, as it would without an attachment, and the point stands behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle


class Order:
    """The modules with hooks of an attachment, and the keys of these hooks, in their order."""

    def __init__(self, places: Sequence[tuple[nn.Module, RemovableHandle]]) -> None:
        self.places: list[tuple[nn.Module, list[int]]] = []
        for module, handle in places:
            keys = next((keys for other, keys in self.places if other is module), None)
            if keys is None:
                self.places.append((module, [handle.id]))
            else:
                keys.append(handle.id)

    def keep(self) -> None:
        """Put the hooks last where they are not."""
        if torch.compiler.is_compiling():
            return
        for module, keys in self.places:
            hooks: Any = module._forward_hooks  # an OrderedDict
            if next(reversed(hooks), None) != keys[-1]:
                for key in keys:
                    if key in hooks:
                        hooks.move_to_end(key)
