"""What surrounds a forward pass, looked at when it is planned: a model spread over processes, a pipeline around it.

Where the error that arrives at the head is not that of the whole model, points would be fed something else than the
rule says; that is refused in words.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tinydfa.errors import DFAError, PointError
from tinydfa.passes.forward_pass import Link, Record, Settings
from tinydfa.surroundings.sharded import Way, spec_of, ways_in


def around(link: Link, settings: Settings, outputs: Sequence[Tensor], records: Sequence[Record]) -> list[Way] | None:
    """What is to be done at each point of a model that is spread over processes; None where there is nothing.

    Raises:
        DFAError: The head does not see the whole error here.
    """
    refuse_stage()
    ways = ways_in(link.model, [record for record in records if record.value is not None])
    for output in outputs:
        refuse_split(output)
    if ways is None:
        return None
    if settings.rule.learns and any(way.part is not None for way in ways):
        raise DFAError(
            f"{settings.rule.name} learns a feedback for whole layers, and tensor parallelism leaves some columns of "
            "them in each process. Use a rule that does not learn (dfa, sdfa, tdfa, drtp), or fully_shard instead."
        )
    return ways


def refuse_split(output: Tensor) -> None:
    """Refuse an output of which this process has a part: the points would be fed a part of the error."""
    if "torch.distributed.tensor" not in sys.modules or not torch.distributed.is_initialized():
        return
    spec = spec_of(output, "at the output")
    if spec is not None and not all(placement.is_replicate() for placement in spec.placements):
        raise PointError(
            f"the output at which the error is taken is spread over processes ({spec.placements}), so each would feed "
            "its points a part of the error. Make it whole there: ColwiseParallel(output_layouts=Replicate()) at the "
            "last layer, without loss_parallel."
        )


def refuse_without_graph(module: nn.Module, name: str) -> None:
    """Refuse a point at a module with weights to train whose output has no graph that leads to them."""
    trained = next((p for p, parameter in module.named_parameters() if parameter.requires_grad), None)
    if trained is not None:
        raise PointError(
            f"what came into feedback point {name!r} has no graph, so its module's {trained!r} and the others would "
            "keep their values. torch.utils.checkpoint does that with use_reentrant=True, because the input is "
            "detached by the point below: pass use_reentrant=False (transformers: "
            "gradient_checkpointing_kwargs={'use_reentrant': False}). Else the module computes under no_grad or "
            "detaches: choose another point, or set requires_grad_(False) on it."
        )


def refuse_stage() -> None:
    """Refuse a stage of `torch.distributed.pipelining` that is not the whole model."""
    stage = running_stage()
    if stage is None or (stage.is_first and stage.is_last):
        return
    where = f"stage {stage.stage_index} of {stage.num_stages}"
    raise DFAError(
        f"the model is {where} of a pipeline. What arrives at its output came back through the stages above, and "
        "nothing would leave it for the stages below: no stage would train by the rule. Train the whole model by "
        "fully_shard or DistributedDataParallel, or attach the stages with 'bp'."
    )


def running_stage() -> Any:
    """The stage of a pipeline that calls the model now, or None."""
    stages = sys.modules.get("torch.distributed.pipelining.stage")
    if stages is None:
        return None
    frame: Any = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename == stages.__file__:  # of others the locals, tensors among them, are not touched
            caller = frame.f_locals.get("self")
            if isinstance(caller, stages._PipelineStageBase):
                return caller
        frame = frame.f_back
    return None
