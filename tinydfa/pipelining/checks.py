"""What a pipeline refuses before it starts: rules and modules that it would train otherwise than one process does."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from tinydfa.errors import DFAError
from tinydfa.feedback.drawn import Feedback
from tinydfa.rules import Rule, find_rule


def trained_by(rule: Rule | type[Rule] | str, feedback: Feedback) -> Rule:
    """The rule that is meant, if a pipeline can train by it.

    Raises:
        DFAError: It does not broadcast, or it learns in the place of a projector.
    """
    found = find_rule(rule)
    if not found.broadcasts:
        raise DFAError(
            f"{found} does not broadcast the error, so that stages would wait for one another. Use dfa, sdfa, tdfa, "
            "drtp or a rule of your own; for backpropagation torch.distributed.pipelining has Schedule1F1B."
        )
    if found.learns and found.adapts:  # type: ignore[attr-defined]
        raise DFAError(
            f"{found} decides by the alignment of all points when backpropagation comes next, and a stage of a "
            "pipeline knows its own points alone. Give a fixed time: exact_every=..., without adapt."
        )
    if found.local and found.looks:
        raise DFAError(
            f"{found!r} has exact passes among those in which stages make their own signals. Use the rule that it "
            "calibrates, or train in one process."
        )
    if found.learns and feedback.projector is not None:
        raise DFAError(
            f"{found} changes a feedback matrix, and {spelled(feedback.projector)} stands in its place. Leave out "
            "feedback=, or use a rule whose feedback is fixed."
        )
    return found


def refuse_side_by_side(rule: Rule, ranks: Sequence[int]) -> None:
    """Refuse a rule that learns in one of several pipelines: each would learn another feedback."""
    if rule.learns and len(ranks) < dist.get_world_size():
        raise DFAError(
            f"{rule} changes its feedback, and this pipeline has {len(ranks)} of {dist.get_world_size()} processes: "
            "several pipelines side by side would each learn another one. Use one pipeline, or a rule whose feedback "
            "is fixed."
        )


def spelled(thing: Any) -> str:
    """`thing` in words that are the same in every process."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(thing))


def refuse_wrapped(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, DistributedDataParallel | FSDPModule):
            raise DFAError(
                f"the stage's module is wrapped by {type(part).__name__}, whose hooks wait for one backward pass, and "
                "a stage has one a microbatch. Give the plain module, and average the gradients before "
                "optimizer.step()."
            )


def mixes_samples(rule: Any, error: Tensor) -> bool:
    """Whether what a rule makes of a sample's error ``[B, c]`` depends on the other samples: tried on the first one."""
    if rule.local:
        return not rule.alone
    if rule.needs_target or error.shape[0] < 2:
        return False
    with torch.no_grad():
        alone = rule.encode(error, None)[0]
        for factor in (100.0, 0.0):
            others = torch.cat([error[:1], error[1:] * factor])
            if not torch.allclose(rule.encode(others, None)[0], alone):
                return True
    return False
