"""Lightning, under both of its names: the attachment's state in each checkpoint, under the key "tinydfa"."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from tinydfa.integrations.arrival import around
from tinydfa.integrations.saved import attachments_in, resume, states_of

KEY = "tinydfa"


def arrived(module: ModuleType) -> None:
    """Give every Trainer the callback."""
    kind: Any = None

    def add(trainer: Any, *args: Any, **kwargs: Any) -> None:
        nonlocal kind
        kind = kind or callback_class(sys.modules[module.__name__.removesuffix(".trainer.trainer")])
        trainer.callbacks.insert(0, kind())  # in front of those that save: they stay last

    around(module.Trainer, "__init__", after=add)


def callback_class(package: ModuleType) -> Any:
    """The callback, of the class that this package wants."""

    class AttachmentCallback(package.Callback):  # type: ignore[name-defined]
        """Saves and resumes what `tinydfa.attach` has put on a module."""

        def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
            states = states_of(pl_module)
            if states:
                checkpoint[KEY] = states

        def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
            if attachments_in(pl_module):
                resume(checkpoint.get(KEY, {}), str(trainer.ckpt_path), pl_module)

    return AttachmentCallback
