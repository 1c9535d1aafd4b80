"""transformers' Trainer: the attachment's state in each checkpoint-N."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

from tinydfa.integrations.arrival import around
from tinydfa.integrations.saved import read, write


def arrived(module: ModuleType) -> None:
    """Give every Trainer the callback, and the callback the folder that a run resumes from."""
    kind = callback_class(module)
    around(module.Trainer, "__init__", after=lambda trainer, *args, **kwargs: trainer.add_callback(kind()))
    plain = inspect.signature(module.Trainer.train)

    def note_folder(trainer: Any, *args: Any, **kwargs: Any) -> None:
        asked = plain.bind(trainer, *args, **kwargs).arguments.get("resume_from_checkpoint")
        folder = module.get_last_checkpoint(trainer.args.output_dir) if asked is True else asked
        for callback in trainer.callback_handler.callbacks:
            if isinstance(callback, kind):
                callback.resumes_from = folder or None

    around(module.Trainer, "train", before=note_folder)


def callback_class(module: ModuleType) -> Any:
    """The callback, of the class that this release of transformers wants."""

    class AttachmentCallback(module.TrainerCallback):  # type: ignore[name-defined]
        """Saves and resumes what `tinydfa.attach` has put on a model."""

        resumes_from: str | None = None

        def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            if state.is_world_process_zero and folder.is_dir():
                write(folder, model)

        def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            if self.resumes_from is not None:
                read(self.resumes_from, model)

    return AttachmentCallback
