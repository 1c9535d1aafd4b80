"""What a pipeline refuses before it starts: rules and modules that it would train otherwise than one process does."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from tinydfa.errors import DFAError
from tinydfa.rules import Rule, find_rule


def trained_by(rule: Rule | type[Rule] | str) -> Rule:
    """The rule that is meant, if a pipeline can train by it.

    Raises:
        DFAError: It does not broadcast, or it learns.
    """
    found = find_rule(rule)
    if found.learns:
        raise DFAError(
            f"{found} changes its feedback, for which every stage would have to see what the others see. Train a "
            "pipeline by a rule whose feedback is fixed: dfa, sdfa, tdfa, drtp."
        )
    if not found.broadcasts:
        raise DFAError(
            f"{found} does not broadcast the error, so that stages would wait for one another. Use dfa, sdfa, tdfa, "
            "drtp or a rule of your own; for backpropagation torch.distributed.pipelining has Schedule1F1B."
        )
    return found


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
    if rule.needs_target or error.shape[0] < 2:
        return False
    with torch.no_grad():
        alone = rule.encode(error, None)[0]
        for factor in (100.0, 0.0):
            others = torch.cat([error[:1], error[1:] * factor])
            if not torch.allclose(rule.encode(others, None)[0], alone):
                return True
    return False
