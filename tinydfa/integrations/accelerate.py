"""accelerate: the attachment's state in the folder of `save_state`."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from torch import nn

from tinydfa.integrations.arrival import around
from tinydfa.integrations.saved import read, write


def arrived(module: ModuleType) -> None:
    """Give every Accelerator the hooks."""

    def register(accelerator: Any, *args: Any, **kwargs: Any) -> None:
        def save(models: list[nn.Module], weights: Any, folder: str) -> None:
            if accelerator.is_main_process:
                write(folder, *models)

        accelerator.register_save_state_pre_hook(save)
        accelerator.register_load_state_pre_hook(lambda models, folder: read(folder, *models))

    around(module.Accelerator, "__init__", after=register)
