"""The state of the attachments in a model: gathered for a checkpoint, written to a file, taken over from one."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tinydfa.attaching.attachment import Attachment
from tinydfa.errors import DFAError

FILE = "tinydfa.pt"
WRAPPERS = re.compile(r"(^|\.)(module|_orig_mod|_fsdp_wrapped_module)(?=\.|$)")
States = dict[str, dict[str, Any]]


def attachments_in(*models: nn.Module) -> dict[str, Attachment]:
    """Every attachment at work in `models`, by the number of its model and its path there; wrappers do not count."""
    found = {}
    for number, model in enumerate(models):
        for name, module in model.named_modules():
            attachment = vars(module).get("_attachment")
            if attachment is not None:
                path = WRAPPERS.sub("", name).strip(".")
                found[f"{number}.{path}" if path else str(number)] = attachment
    return found


def states_of(*models: nn.Module) -> States:
    return {name: attachment.state_dict() for name, attachment in attachments_in(*models).items()}


def write(folder: str | Path, *models: nn.Module) -> None:
    """Write the states to a file in `folder`, whole or not at all; nothing where nothing is attached."""
    states = states_of(*models)
    if not states:
        return
    path = Path(folder) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{FILE}.new")
    torch.save(states, new)
    os.replace(new, path)


def read(folder: str | Path, *models: nn.Module) -> None:
    """Take over the states from the file in `folder`; nothing where nothing is attached."""
    if not attachments_in(*models):
        return
    path = Path(folder) / FILE
    states = torch.load(path, map_location="cpu", weights_only=True) if path.is_file() else {}
    resume(states, str(folder), *models)


def resume(states: Mapping[str, Mapping[str, Any]], where: str, *models: nn.Module) -> None:
    """Let the attachments go on as they were saved.

    Raises:
        DFAError: one was attached with another seed, or other feedback, than the one that was saved.
    """
    for name, attachment in attachments_in(*models).items():
        state = states.get(name)
        if state is None:
            warnings.warn(
                f"checkpoint {where} holds no state of the attachment on {type(attachment.model).__name__}: "
                f"it was saved before the model was attached. {attachment.rule} starts anew, with feedback of seed "
                f"{attachment.feedback.seed}.",
                stacklevel=2,
            )
            continue
        refuse_other_feedback(attachment, state, where)
        if state["method"] != attachment.rule.name:
            warnings.warn(
                f"the model was attached by {attachment.rule}, and goes on by {state['method']}, as checkpoint {where} "
                f"was saved. To change the rule, set attachment.method = {attachment.rule.name!r} once training runs.",
                stacklevel=2,
            )
        attachment.load_state_dict(state)


def refuse_other_feedback(attachment: Attachment, state: Mapping[str, Any], where: str) -> None:
    """Refuse to go on where the script asks for other feedback than the checkpoint was trained with."""
    if attachment.feedback.projector is not None:
        return  # compared by its fingerprint
    if state["seed"] != attachment.feedback.seed:
        raise DFAError(
            f"the model was attached with seed={attachment.feedback.seed}, and checkpoint {where} was trained with "
            f"feedback of seed={state['seed']}: its hidden layers have learned to use that. Resume with "
            f"attach(..., seed={state['seed']}), or start a run of its own."
        )
    asked = attachment.feedback_options()
    other = {key: value for key, value in state.get("feedback", asked).items() if asked.get(key) != value}
    if other:
        raise DFAError(
            f"checkpoint {where} was trained with feedback of {other}, and the model was attached with "
            f"{ {key: asked.get(key) for key in other} }. Resume with the former, or start a run of its own."
        )
