"""`attach` makes a model train by a rule, without changing it.

Points are the model's own `DFALayer`s or entries of what any of its submodules returns, by name. Here it is found out
what to do with a model; `tinydfa.attachment` does it, and undoes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from tinydfa.attaching import entries
from tinydfa.attaching.attachment import Attachment, Plan, attachment_of
from tinydfa.attaching.hooks import HeadHook, PointHook
from tinydfa.attaching.naming import find_modules, matching, no_points, suggest
from tinydfa.errors import DFAError, PointError, UnregisteredPointError
from tinydfa.feedback.drawn import Distribution, Feedback
from tinydfa.head import Head
from tinydfa.memory.choice import chosen
from tinydfa.names import Method
from tinydfa.points import DFALayer
from tinydfa.rules import Rule, find_rule
from tinydfa.surroundings.wrappers import unwrapped

BatchDims = tuple[int, ...] | Mapping[str, tuple[int, ...]] | None
Places = dict[str, tuple[nn.Module, entries.Keys]]  # points by name: a submodule and an entry of what it returns


def attach(
    model: nn.Module,
    method: Rule | type[Rule] | str = Method.DFA,
    points: Sequence[str] | str | None = None,
    output: Sequence[str] | str | None = None,
    feedback: Feedback | Distribution | str | Callable[..., Any] | None = None,
    seed: int | None = None,
    batch_dims: BatchDims = None,
    memory: str | int | None = None,
) -> Attachment:
    """Make `model` train by a rule; the training loop stays as it is.

    Args:
        model: Any module. Its points and its output belong together within one call of it.
        method: A rule: an object, a class, the name of one of the library's, or ``"file.py:Class"``.
        points: Names or patterns of submodules whose outputs are feedback points: ``*`` stands for anything between
            two dots, ``**`` for anything. Of a submodule that returns several tensors the first is the point, or the
            entry that is named: ``"lstm[1][0]"``. None: the model's own `DFALayer`s.
        output: Where the error is taken: the name of a submodule, an entry of what it returns (``"heads[actor]"``), an
            entry of the model's return value (``"[pooler_output]"``), or several entries of one of them, whose errors
            then stand side by side. None: the model's own head, else its return value (of a tuple or mapping: its
            first tensor).
        feedback: A `Feedback`, the name of a distribution, or a projector (`tinydfa.projectors`).
        seed: Of the feedback; 0 if left out. A `Feedback` has its own.
        batch_dims: Dimensions that count samples, for all points and the output, or by name or pattern of the point.
            None: all but the last of the output, and as many leading ones at every point; an output of four dimensions
            or more must say.
        memory: What a forward pass keeps for the backward pass. None: everything. ``"replay"``: one block at a time;
            the model runs forward again when the error is known, and the gradients are the same. A number of bytes:
            as many of the topmost blocks as fit, the others as under ``"replay"``. ``"forward"``: nothing; rules that
            read the targets alone add to the gradients in the forward pass (zero them before it).

    Returns:
        The attachment: switch its rule, suspend it, save its feedback, detach it.

    Raises:
        DFAError: Unknown rule, pattern or output; no points; points that no head would feed; already attached; a seed
            beside a `Feedback`.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))
        >>> attachment = attach(net, "dfa", points=["1", "3"])
        >>> net(torch.ones(3, 4)).sum().backward()
        >>> attachment.points
        {'1': 8, '3': 8}
    """
    rule = find_rule(method)
    model = unwrapped(model)
    refuse_scripted({type(model).__name__: model})
    refuse_attached(model, rule.name)
    settled = settled_feedback(feedback, seed)
    return Attachment(model, rule, settled, planned(model, rule, points, output, batch_dims), chosen(memory))


def planned(
    model: nn.Module,
    rule: Rule,
    points: Sequence[str] | str | None,
    output: Sequence[str] | str | None,
    batch_dims: BatchDims,
) -> Plan:
    """What to do with `model`; nothing of it is touched."""
    head, hooks, at_return = own_head(model), [], None
    if head is not None and (points is not None or output is not None):
        raise DFAError(
            f"{type(model).__name__} has a DFA head of its own, which decides its points and its output. Leave out "
            "points= and output=, or take the head out of the model."
        )
    if head is None:
        places = points_to_hook(model, rule, points)
        refuse_scripted({name: module for name, (module, _) in places.items()})
        head = new_head(model, places)
        if head is not None:
            hooks = point_hooks(head, places)
            module, hook = head_hook(model, head, output)
            if module is model:
                at_return = hook
            else:
                hooks.append((module, hook))
    general, by_point = dims_by_point(head, model, batch_dims)
    return Plan(head, hooks, at_return, own_points(model), general, by_point)


def settled_feedback(feedback: Any, seed: int | None) -> Feedback:
    """A `Feedback`, from what `attach` was given.

    Raises:
        DFAError: a seed is said twice.
    """
    if isinstance(feedback, Feedback):
        if seed is not None:
            raise DFAError(
                f"seed={seed} is said beside a Feedback, which has a seed of its own ({feedback.seed}). Give it there: "
                f"Feedback(..., seed={seed})."
            )
        return feedback
    if feedback is not None and not isinstance(feedback, str) and callable(feedback):
        if seed is not None:
            raise DFAError(f"seed={seed} has no meaning for a projector, which decides what it draws. Give it there.")
        return Feedback(projector=feedback)
    return Feedback(distribution=feedback or Distribution.UNIFORM, seed=seed or 0)


def refuse_attached(model: nn.Module, rule: str) -> None:
    """One attachment at a time, in the whole of a model."""
    for name, module in model.named_modules():
        if attachment_of(module) is not None:
            raise DFAError(
                f"{name or type(model).__name__!r} is attached already. Switch it with attachment.method = "
                f"{rule!r}, or call attachment.detach() first."
            )


def refuse_scripted(modules: Mapping[str, nn.Module]) -> None:
    """A program of torch.jit runs without the forwards and hooks of the modules it was made from."""
    scripted = [name for name, module in modules.items() if isinstance(module, torch.jit.ScriptModule)]
    if scripted:
        raise DFAError(
            f"{', '.join(map(repr, scripted))} was made by torch.jit.script or torch.jit.trace, and such a program "
            "calls no hooks. Attach to the model before it is scripted or traced, train it, and make the program then."
        )


def own_points(model: nn.Module) -> dict[str, DFALayer]:
    return {name: module for name, module in model.named_modules() if isinstance(module, DFALayer)}


def own_head(model: nn.Module) -> Head | None:
    """The model's own head, if it has one."""
    heads = {name: module for name, module in model.named_modules() if isinstance(module, Head)}
    if not heads:
        return None
    if len(heads) > 1:
        raise DFAError(
            f"{type(model).__name__} has {len(heads)} DFA heads ({', '.join(map(repr, heads))}), and an attachment "
            "has one. Attach to the submodules that hold them."
        )
    (head,) = heads.values()
    fed = {id(point) for point in head.points}
    unfed = [name for name, point in own_points(model).items() if id(point) not in fed]
    if unfed:
        raise UnregisteredPointError(
            f"feedback points {', '.join(map(repr, unfed))} are not in the list of the model's head, so no signal "
            f"reaches them. It feeds: {head._names()}. Add them to DFA([...]), or remove them from the model."
        )
    return head


def points_to_hook(model: nn.Module, rule: Rule, patterns: Sequence[str] | str | None) -> Places:
    """The places that the patterns name; none where the model's own `DFALayer`s are the points."""
    if patterns is None:
        if rule.cuts and not own_points(model):
            raise PointError(no_points(model, rule.name))
        return {}
    found: dict[tuple[int, entries.Keys], tuple[str, nn.Module]] = {}  # a module may be found under several names
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        module_pattern, keys = entries.parse(pattern)
        for name, module in find_modules(model, [module_pattern]).items():
            found.setdefault((id(module), keys), (name + entries.spelled(keys), module))
    order = {id(module): number for number, module in enumerate(model.modules())}
    in_order = sorted(found.items(), key=lambda item: order[item[0][0]])
    return {name: (module, keys) for (_, keys), (name, module) in in_order}


def new_head(model: nn.Module, places: Places) -> Head | None:
    """A head outside the model; None where there is nothing to feed."""
    points = [DFALayer(name) for name in places] or list(own_points(model).values())
    return Head(points, adopt=False) if points else None


def point_hooks(head: Head, places: Places) -> list[tuple[nn.Module, Any]]:
    """A hook for every place that is a point."""
    hooks: list[tuple[nn.Module, Any]] = []
    for point, (module, keys) in zip(head.points, places.values(), strict=False):
        others = [other for same, other in places.values() if same is module and other != keys]
        hooks.append((module, PointHook(point, keys or None, others)))
    return hooks


def head_hook(model: nn.Module, head: Head, output: Sequence[str] | str | None) -> tuple[nn.Module, HeadHook]:
    """The module at whose output the error is taken, and the hook that takes it."""
    if output is None:
        return model, HeadHook(head, "the model's return value")
    named = [entries.parse(name) for name in ([output] if isinstance(output, str) else output)]
    modules = dict.fromkeys(module for module, _ in named)
    if len(modules) != 1:
        raise PointError(
            f"output names {', '.join(map(repr, modules))}: the error is taken at entries of one module's output. "
            "Name the module that returns them all."
        )
    (name,) = modules
    keys = [keys for _, keys in named]
    chosen = None if keys == [()] else keys
    if name == "":
        return model, HeadHook(head, "the model's return value", chosen)
    return output_module(model, name), HeadHook(head, f"the output of {name!r}", chosen)


def output_module(model: nn.Module, name: str) -> nn.Module:
    modules = {key: module for key, module in model.named_modules() if key}
    if name not in modules:
        raise PointError(
            f"output {name!r} is no submodule of {type(model).__name__}. {suggest(name, modules)} Without output=, "
            f"the error is taken at the model's return value; an entry of it is written '[{name}]'."
        )
    return modules[name]


def dims_by_point(
    head: Head | None, model: nn.Module, batch_dims: BatchDims
) -> tuple[tuple[int, ...] | None, dict[str, tuple[int, ...]]]:
    """The batch dimensions for all, and those of single points by label.

    Raises:
        PointError: a name or pattern matches no feedback point.
    """
    if not isinstance(batch_dims, Mapping):
        return batch_dims, {}
    if head is None:
        return None, {}
    names = {id(point): name for name, point in own_points(model).items()}
    labels = [names.get(id(point), point.label) for point in head.points]
    found = {}
    for name, dims in batch_dims.items():
        found.update(dict.fromkeys(matching(name, labels, "batch_dims"), dims))
    return None, found
