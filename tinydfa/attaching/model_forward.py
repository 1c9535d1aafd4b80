"""The `forward` of an attached model: it knows where a pass begins and ends, also one that raises.

An attached model gets a subclass of its class, as `torch.nn.utils.parametrize` and FSDP2 give it one, with another
`forward`. To everybody else this looks as the original did: its parameters and defaults are the same, it is a method of
its instance (a copy or a replica computes with its own weights), and what wraps it can be taken off again, before
`detach` or after it. Two other places were tried:

- The module's hooks: `torch.compile` runs those of its outermost module outside the graph, and points and head belong
  in one graph (`test_one_graph_holds_points_and_head`).
- An attribute of the instance: replicas and shallow copies share it, and would compute with the original's weights.

Every model has a function of its own, with a copy of the code: the compiler counts its recompilations per code object,
and models that share one would share its limit (`test_many_models_in_one_process`). For the same reason every rule
that an attachment switches to has a function of its own, so that what was compiled for each stays compiled
(`test_switching_through_all_methods_on_one_compiled_model`).
"""

from __future__ import annotations

import copyreg
import itertools
from collections.abc import Callable
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import nn

from tinydfa.attaching.leftover import still_unknown
from tinydfa.attaching.lookalike import copied, is_lookalike, lookalike
from tinydfa.attaching.looks import looking
from tinydfa.errors import DFAError, PointError
from tinydfa.passes.forward_pass import ForwardPass, in_backward
from tinydfa.surroundings.tracing import is_tracing

_NUMBERS = itertools.count(1)


def take_over(model: nn.Module, rule: str) -> Callable[..., Any] | None:
    """Put an attached forward on `model`; it does nothing until ``model._attachment`` is there.

    Returns:
        A `forward` that the instance had, for `give_back`; None where it had its class's.
    """
    own = None
    if class_of(model) is None:  # else somebody derived from ours while the model was attached before
        own = vars(model).pop("forward", None)
        model.__class__ = attached_class(type(model), own)
    use(model, rule)
    return own


def use(model: nn.Module, rule: str) -> None:
    """Give `model` the forward of a rule."""
    cls: Any = class_of(model)
    forward = cls._dfa_forwards.get(rule)
    if forward is None:
        forward = cls._dfa_forwards[rule] = copied(cls.forward)
    cls.forward = forward


def give_back(model: nn.Module, own: Callable[..., Any] | None) -> None:
    """Give `model` its class back, and a `forward` that its instance had.

    Who derived from our class, or wrapped our forward, keeps it: it then does what the original does.
    """
    kind, place = vars(type(model)).get("_dfa_stands_for"), vars(model)
    if kind is not None:
        model.__class__ = kind
    if is_lookalike(place.get("forward")):  # put there by who took a wrapper off
        del place["forward"]
    if own is not None:
        place["_dfa_own_forward" if "forward" in place else "forward"] = own


def class_of(model: nn.Module) -> type | None:
    """The class among those of `model` that stands in for its own."""
    return next((cls for cls in type(model).__mro__ if "_dfa_stands_for" in vars(cls)), None)


def attached_class(kind: type, own: Callable[..., Any] | None) -> type:
    """A class that stands in for `kind`, with a forward that looks like its, or like the `own` one of an instance.

    It has ``_dfa_stands_for``, the class of the model before it was attached, and ``_dfa_forwards``, a forward for
    every rule so far.
    """
    like: Any = kind.forward if own is None else own  # type: ignore[attr-defined]
    has_instance = own is None or isinstance(own, MethodType)
    body = {name: getattr(kind, name) for name in ("__module__", "__qualname__", "__doc__")}
    body |= {"_dfa_stands_for": kind, "_dfa_forwards": {}}
    body["forward"] = lookalike(like, forward_pass, kind, next(_NUMBERS), has_instance)
    body["__reduce_ex__"], body["__prepare_scriptable__"] = reduced, refuse_script
    body["_replicate_for_data_parallel"] = replicated
    declares = hasattr(kind.__init_subclass__, "__func__")
    return type(kind)(kind.__name__, (Undeclared, kind) if declares else (kind,), body)


class Undeclared:
    """Keeps a class from the ``__init_subclass__`` of its other bases: to the user, no class is declared."""

    def __init_subclass__(cls) -> None:
        pass


def reduced(self: nn.Module, protocol: Any) -> Any:
    """As the model's own class would be reduced; a copy then gets a class of its own."""
    found: Any = super(class_of(self), self).__reduce_ex__(protocol)  # type: ignore[arg-type]
    kind = vars(type(self)).get("_dfa_stands_for")
    if kind is None or found[0] is not copyreg.__newobj__:  # type: ignore[attr-defined]
        return found
    return new_instance, (kind, *found[1][1:]), *found[2:]


def new_instance(kind: type, *arguments: Any) -> Any:
    """An instance, still empty, of a new class that stands in for `kind`."""
    cls: Any = attached_class(kind, None)
    return cls.__new__(cls, *arguments)


def refuse_script(self: nn.Module) -> nn.Module:
    if vars(self).get("_attachment") is None:
        return self
    raise DFAError(
        "torch.jit.script compiles the source of a model's forward, which knows nothing of the attachment. Call "
        "attachment.detach() first, or use torch.export.export or torch.jit.trace, which take the model as it is."
    )


def replicated(self: nn.Module) -> Any:
    """A replica of `nn.DataParallel`: it runs the model's own forward, in which no point has anything to do."""
    attached: Any = vars(self).get("_attachment")
    if attached is not None and attached.link.cuts and torch.is_grad_enabled():
        raise DFAError(
            f"nn.DataParallel runs replicas of the model in threads, and {attached.link.rule} has one feedback for "
            "all of them, on one device. Use nn.parallel.DistributedDataParallel, one process a GPU."
        )
    replica = super(class_of(self), self)._replicate_for_data_parallel()  # type: ignore[arg-type]
    if vars(replica).pop("_attachment", None) is not None and attached.own_forward is not None:
        vars(replica)["_dfa_own_forward"] = attached.own_forward
    return replica


def forward_pass(kind: Any, number: int, model: nn.Module, /, *args: Any, **kwargs: Any) -> Any:
    """One forward pass of a model that is, or was, attached.

    Args:
        kind: The class that ours stands in for.
        number: Of the function that was called: wrapped in one another, only the outermost makes a pass.
        model: The model.
    """
    attached: Any = getattr(model, "_attachment", None)
    if attached is None:
        return wrapped_forward(kind, model, *args, **kwargs)
    link, own = attached.link, attached.own_forward
    current = link.current
    if current.open:
        if current.number != number:
            return wrapped_forward(kind, model, *args, **kwargs)
        with link.nested():
            return forward_pass(kind, number, model, *args, **kwargs)
    if is_tracing():  # points and head stand aside where no pass is open
        return kind.forward(model, *args, **kwargs) if own is None else own(*args, **kwargs)
    if link.looks:
        return looking(model, partial(forward_pass, kind, number, model), args, kwargs)
    if attached.leftover and link.cuts and not torch.compiler.is_compiling() and torch.is_grad_enabled():
        attached.leftover = still_unknown(model, attached.leftover, link.rule.name)
    current.records = []  # left over from a pass that raised
    current.open, current.number = True, number
    if link.order is not None:
        link.order.keep()
    if link.memory is not None:
        link.memory.begin(link, model, partial(run_again, kind, model), args, kwargs)
    try:
        output = kind.forward(model, *args, **kwargs) if own is None else own(*args, **kwargs)
        if attached.at_return is not None:
            output = attached.at_return(model, args, output)
        if current.records:
            refuse_unfed(current)
    finally:
        current.open = False
        current.taker = None
        current.records = []
        if not in_backward():  # the target may yet be set for a pass that is being recomputed
            current.target = None
    return output


def run_again(kind: Any, model: nn.Module, *args: Any, **kwargs: Any) -> None:
    """The same pass once more, which the points and the head know of."""
    attached: Any = model._attachment
    own = attached.own_forward
    output = kind.forward(model, *args, **kwargs) if own is None else own(*args, **kwargs)
    if attached.at_return is not None:
        attached.at_return(model, args, output)


def wrapped_forward(kind: Any, model: nn.Module, /, *args: Any, **kwargs: Any) -> Any:
    """What our forward does for those who wrapped it while the model was attached, and keep it."""
    own = vars(model).get("_dfa_own_forward")
    return kind.forward(model, *args, **kwargs) if own is None else own(*args, **kwargs)


def refuse_unfed(current: ForwardPass) -> None:
    """Points that are still there at the end of a pass have no head."""
    left = [record.point.label for record in current.take() if record.value is not None]
    if left:
        raise PointError(
            f"no head feeds {', '.join(map(repr, left))}: in this forward pass the output that takes the error did not "
            "come after them, so everything below them would keep its weights. Name a later output, or remove these "
            "points."
        )
