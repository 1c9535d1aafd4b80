"""A pipeline's checkpoint: one folder that every stage writes its part of, and any number of stages can read.

Parts are found by the names of the whole model's weights, so stages must keep them: slices of an `nn.Sequential` do,
and so do the stages of `torch.distributed.pipelining.pipeline`. The files are `torch.distributed.checkpoint`'s.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict, set_optimizer_state_dict

from tinydfa.errors import DFAError
from tinydfa.pipelining.learning import State, joined
from tinydfa.pipelining.schedule import ScheduleDFA

ABOUT = "pipeline.pt"  # rule, feedback and step
LEARNED = "feedback.{}.pt"  # what each stage's part of it has learned
FLAT = StateDictOptions(flatten_optimizer_state_dict=True)


def save(folder: Path | str, schedule: ScheduleDFA, optimizer: torch.optim.Optimizer, step: int = 0) -> None:
    """Write what all stages need to go on; every stage calls it after the same step.

    The folder appears whole or not at all; one that was there before is replaced at the end.

    Args:
        folder: Where, on a file system that all stages share.
        schedule: The stage's.
        optimizer: Of the stage's weights.
        step: Steps done; `load` returns it.
    """
    folder = Path(folder)
    part, main = folder.with_name(folder.name + ".part"), schedule.exchange.is_first
    if main:
        shutil.rmtree(part, ignore_errors=True)
    refuse_shared_names(schedule)
    with schedule.exchange.answering("the other stages"):
        dcp.save(state_of(schedule, optimizer), checkpoint_id=part, process_group=schedule.exchange.group)
    state = schedule.state_dict()
    learned = state.pop("learner")
    if schedule.rule.learns:
        torch.save(learned, part / LEARNED.format(schedule.exchange.stage.stage_index))
        schedule.exchange.flush()
    if main:
        torch.save({"schedule": state, "step": step}, part / ABOUT)
        replace(part, folder)
    schedule.exchange.flush()


def load(folder: Path | str, schedule: ScheduleDFA, optimizer: torch.optim.Optimizer) -> int:
    """Take over what `save` wrote, with this or another number of stages; returns the steps done.

    Raises:
        DFAError: There is no checkpoint, it lacks a weight of this stage, or it was trained by another rule.
    """
    folder = Path(folder)
    if not (folder / ABOUT).is_file():
        raise DFAError(f"{folder} holds no checkpoint of a pipeline. Give the folder that save() was given.")
    about = torch.load(folder / ABOUT, weights_only=True)
    schedule.load_state_dict(about["schedule"] | {"learner": learned_in(folder)})
    state = state_of(schedule, optimizer)
    try:
        dcp.load(state, checkpoint_id=folder, process_group=schedule.exchange.group)
    except (RuntimeError, dcp.CheckpointException) as error:
        reason = " ".join(str(error).split())[-300:]
        raise DFAError(
            f"{folder} is not the checkpoint of this model ({reason}). The stages must keep the names of the whole "
            "model's weights, and the optimiser must be of the same kind."
        ) from error
    module = schedule.points.module
    module.load_state_dict(state["model"])
    set_optimizer_state_dict(module, optimizer, state["optimizer"], options=FLAT)
    return int(about["step"])


def learned_in(folder: Path) -> State | None:
    """What the feedback of all stages had learned."""
    files = sorted(folder.glob(LEARNED.format("*")), key=lambda path: int(path.suffixes[0][1:]))
    parts = [torch.load(path, weights_only=True) for path in files]
    parts = [part for part in parts if part is not None]
    return joined(parts) if parts else None


def state_of(schedule: ScheduleDFA, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """A stage's weights and what its optimiser keeps, by the weights' names."""
    module = schedule.points.module
    optimizer_state = get_optimizer_state_dict(module, optimizer, options=FLAT)
    return {"model": module.state_dict(), "optimizer": optimizer_state}


def refuse_shared_names(schedule: ScheduleDFA) -> None:
    """Refuse stages of which two call a weight by the same name: one would overwrite the other."""
    seen: dict[str, int] = {}
    own = list(schedule.points.module.state_dict())
    if schedule.rule.learns:
        own += [f"feedback point {name}" for name in schedule.points.names]
    for stage, names in enumerate(schedule.exchange.meet(own)):
        for name in names:
            if seen.setdefault(name, stage) != stage:
                raise DFAError(
                    f"stages {seen[name]} and {stage} both have {name!r}, so that one would overwrite the other. Keep "
                    "the names of the whole model: model[start:stop] of an nn.Sequential does."
                )


def replace(part: Path, folder: Path) -> None:
    """Put a finished folder in its place."""
    before = folder.with_name(folder.name + ".before")
    shutil.rmtree(before, ignore_errors=True)
    if folder.exists():
        os.replace(folder, before)
    os.replace(part, folder)
    shutil.rmtree(before, ignore_errors=True)
