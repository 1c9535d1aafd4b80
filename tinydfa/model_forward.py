"""The `forward` of an attached model: it knows where a pass begins and ends, also one that raises.

It stands on the instance rather than in the module's hooks because `torch.compile` runs the hooks of its outermost
module outside the graph, and points and head belong in one graph (`test_one_graph_holds_points_and_head`).

Every instance is of a class of its own, with a copy of the code: the compiler counts its recompilations per code
object, and models that share one would share its limit (`test_many_models_in_one_process`). For the same reason every
rule that an attachment switches to has a forward of its own, so that what was compiled for each stays compiled
(`test_switching_through_all_methods_on_one_compiled_model`).
"""

from __future__ import annotations

from functools import partial
from types import FunctionType
from typing import Any

from torch import nn

from tinydfa.errors import PointError
from tinydfa.hooks import HeadHook
from tinydfa.passes import ForwardPass, Link, in_backward


class AttachedForward:
    """Stands in for the forward of a model.

    Attributes:
        model: The model.
        link: What its points and its head share.
        head: What takes the error at its return value; None where it is taken elsewhere.
        before: A `forward` that the instance had already; None: its class's.
        by_rule: The forwards of this attachment, by the name of the rule.
    """

    model: nn.Module
    link: Link
    head: HeadHook | None
    before: Any
    by_rule: dict[str, AttachedForward]

    def __new__(cls) -> AttachedForward:
        call = FunctionType(forward_pass.__code__.replace(), forward_pass.__globals__, "__call__")
        return object.__new__(type("AttachedForward", (AttachedForward,), {"__call__": call}))

    def __reduce__(self) -> tuple[Any, ...]:
        return AttachedForward, (), vars(self)

    @staticmethod
    def take_over(model: nn.Module, link: Link, head: HeadHook | None) -> AttachedForward:
        """Put a forward on the model; with `head`, the error is taken at its return value."""
        new = AttachedForward()
        new.model, new.link, new.head = model, link, head
        new.before = vars(model).get("forward")
        new.by_rule = {link.rule.name: new}
        vars(model)["forward"] = new
        return new

    def of(self, rule: str) -> AttachedForward:
        """The same for another rule, with code of its own."""
        place = vars(self.model)
        other = self.by_rule.get(rule)
        if other is None:
            other = self.by_rule[rule] = AttachedForward()
            vars(other).update(vars(self))
        if place.get("forward") is not self:  # the user replaced `forward` after attach: leave it alone
            return self
        place["forward"] = other
        return other

    def remove(self) -> None:
        """Give the model its own `forward` back."""
        place = vars(self.model)
        if place.get("forward") is self:
            del place["forward"]
            if self.before is not None:
                place["forward"] = self.before


def forward_pass(self: AttachedForward, *args: Any, **kwargs: Any) -> Any:
    """One forward pass of an attached model."""
    model, current = self.model, self.link.current
    current.records = []  # left over from a pass that raised
    current.open = True
    memory = self.link.memory
    if memory is not None:
        memory.begin(self.link, model, partial(run_again, self), args, kwargs)
    try:
        output = type(model).forward(model, *args, **kwargs) if self.before is None else self.before(*args, **kwargs)
        if self.head is not None:
            output = self.head(model, args, output)
        if current.records:
            refuse_unfed(current)
    finally:
        current.open = False
        if memory is not None:
            memory.end()
        current.records = []
        if not in_backward():  # the target may yet be set for a pass that is being recomputed
            current.target = None
    return output


def run_again(self: AttachedForward, *args: Any, **kwargs: Any) -> None:
    """The same pass once more, which the points and the head know of."""
    model = self.model
    output = type(model).forward(model, *args, **kwargs) if self.before is None else self.before(*args, **kwargs)
    if self.head is not None:
        self.head(model, args, output)


def refuse_unfed(current: ForwardPass) -> None:
    """Points that are still there at the end of a pass have no head."""
    left = [record.point.label for record in current.records if record.value is not None]
    if left:
        raise PointError(
            f"no head feeds {', '.join(map(repr, left))}: in this forward pass the output that takes the error did not "
            "come after them, so everything below them would keep its weights. Name a later output, or remove these "
            "points."
        )
