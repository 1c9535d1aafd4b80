"""What a pass keeps for its backward pass: everything, as many blocks as fit in a budget, or nothing.

    attach(model, "dfa", memory="replay")    no graph outlives its point; the model runs forward again when e is known
    attach(model, "dfa", memory=2**30)       graphs of up to so many bytes are kept, the topmost; the others as above
    attach(model, "drtp", memory="forward")  rules that do not read e: every block has its gradients in the forward pass

A block here is what hangs below one feedback point.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tinydfa.errors import DFAError, ReplayError
from tinydfa.memory.again import Again
from tinydfa.memory.at_once import AtOnce
from tinydfa.memory.first_pass import FirstPass
from tinydfa.memory.kept import FORWARD, REPLAY, Choice, Kept
from tinydfa.memory.second_run import Layout
from tinydfa.passes.forward_pass import Link, in_backward, transformed
from tinydfa.rules import Rule

WHOLE = (
    "memory= runs the model's blocks one by one, so the model cannot be compiled as a whole. Compile its blocks: "
    "for block in model.blocks: block.compile()"
)
# torch 2.6 takes no reason: a compiler that comes here stops there without one.
SAID = {"reason": WHOLE} if "reason" in signature(torch.compiler.disable).parameters else {}


class Memory(Kept):
    """What decides, pass by pass, which graphs are kept."""

    @torch.compiler.disable(**SAID)
    def begin(
        self, link: Link, model: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """A forward pass begins."""
        wanted = torch.is_grad_enabled() and link.cuts and link.rule.broadcasts and not in_backward()
        if not wanted or link.still or link.observation is not None:
            return
        refuse_unused_search()
        if transformed():
            raise ReplayError(
                "memory= runs the model again in loss.backward(), which torch.func does not call. Leave memory= out, "
                "or train by loss.backward()."
            )
        training = hash(tuple([module.training for module in model.modules()]))
        again = Again(model, forward, args, kwargs, self.changing.get(training))
        current = link.current
        current.taker = first = FirstPass(self, link, again, training)
        if not self.in_forward:
            return
        layout = self._layout_in_force(link, model)
        if layout is None:
            return
        if current.target is not None and current.rows is None and not again.inputs and not under_ddp():
            current.taker = AtOnce(self, link, layout, first)

    def _layout_in_force(self, link: Link, model: nn.Module) -> Layout | None:
        """The layout of the pass before, if nothing that it depends on has changed."""
        asking = hash(tuple([parameter.requires_grad for parameter in model.parameters()]))
        if asking != self.asking:
            self.asking, self.layout = asking, None
        layout = self.layout
        if layout is None or layout.settings is not link.settings:
            return None
        return layout if layout.head.in_force(layout.settings) is layout.matrix else None


def chosen(choice: Choice) -> Memory | None:
    """What `memory=` of `attach` asks for.

    Raises:
        DFAError: it asks for something that does not exist.
    """
    if choice is None:
        return None
    number = isinstance(choice, int) and not isinstance(choice, bool) and choice >= 0
    if not number and choice not in (REPLAY, FORWARD):
        raise DFAError(
            f"memory={choice!r} is unknown. Choose {REPLAY!r}, {FORWARD!r}, a number of bytes, or leave it out."
        )
    return Memory(choice)


def refuse_rule(choice: Choice, rule: Rule) -> None:
    """Refuse rules that cannot train without the graphs."""
    if choice is None:
        return
    if not rule.cuts:
        raise DFAError(
            f"memory={choice!r} frees each block's graph before the error is known, and {rule} walks back through "
            "them. Use a rule that sends its signal straight to the points (dfa, say), or torch.utils.checkpoint."
        )
    if getattr(rule, "exact_every", 0) > 0:
        raise DFAError(
            f"memory={choice!r} frees the graphs that {rule} walks back through in its exact passes. "
            "Let it look at noise alone (exact_every=0, probe_every=...), or leave memory= out."
        )
    if choice == FORWARD and rule.needs_error:
        raise DFAError(
            f"memory={FORWARD!r} trains each block in the forward pass, and {rule} needs the error, which is known "
            f"after it. Use memory={REPLAY!r}, or a rule that reads the targets alone (drtp, les)."
        )


def refuse_unused_search() -> None:
    """Refuse DDP's search for unused parameters, which would find all those whose graph is not there."""
    ddp = DistributedDataParallel._get_active_ddp_module()
    if ddp is not None and ddp.find_unused_parameters and not ddp.static_graph:
        raise ReplayError(
            "memory= frees the blocks' graphs, so DistributedDataParallel(find_unused_parameters=True) would take "
            "their weights for unused. Leave find_unused_parameters out."
        )


def under_ddp() -> bool:
    return DistributedDataParallel._get_active_ddp_module() is not None
