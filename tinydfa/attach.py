"""`attach` makes a model train by a method, without changing it.

Points are the model's own `DFALayer`s or any of its submodules, by name. Hooks bring the points' outputs to the tape
and a `forward` on the instance the model's output to the head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from tinydfa.attachment import Attachment
from tinydfa.dfa import DFA
from tinydfa.errors import DFAError, PointError, UnregisteredPointError
from tinydfa.feedback import Distribution, Feedback
from tinydfa.hooks import HeadHook, PointHook, attachment_of
from tinydfa.methods import Method
from tinydfa.naming import find_modules, no_points, suggest
from tinydfa.points import DFALayer

BatchDims = tuple[int, ...] | Mapping[str, tuple[int, ...]] | None


def attach(
    model: nn.Module,
    method: Method | str = Method.DFA,
    points: Sequence[str] | str | None = None,
    output: str | None = None,
    feedback: Feedback | Distribution | str | None = None,
    seed: int = 0,
    batch_dims: BatchDims = None,
) -> Attachment:
    """Make `model` train by `method`; the training loop stays as it is.

    Args:
        model: Any module. Its points and its output belong together within one call of it.
        method: One of `Method`.
        points: Names or patterns of submodules whose outputs are feedback points: ``*`` stands for anything between
            two dots, ``**`` for anything. None: the model's own `DFALayer`s.
        output: Name of the submodule at whose output the error is taken. None: the model's own `DFA` module, else
            its return value (of a tuple or mapping: its first tensor).
        feedback: A `Feedback`, or the name of a distribution.
        seed: Of the feedback; ignored if `feedback` is a `Feedback`, which has its own.
        batch_dims: Dimensions that count samples, for all points and the output, or by name of the point. None: all
            but the last of the output, and as many leading ones at every point.

    Returns:
        The attachment: switch its method, suspend it, save its feedback, detach it.

    Raises:
        DFAError: Unknown method, pattern or output; no points; points that no head would feed; already attached.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))
        >>> attachment = attach(net, "dfa", points=["1", "3"])
        >>> net(torch.ones(3, 4)).sum().backward()
        >>> attachment.points
        {'1': 8, '3': 8}
    """
    method = Method.parse(method)
    model = getattr(model, "_orig_mod", model)
    refuse_attached(model, method)
    if not isinstance(feedback, Feedback):
        feedback = Feedback(distribution=feedback or Distribution.UNIFORM, seed=seed)
    attachment = Attachment(model, feedback)
    for point in own_points(model).values():
        attachment.remember(point, "name", "batch_dims", "tape")
    try:
        own = own_head(model)
        if own is not None and (points is not None or output is not None):
            raise DFAError(
                f"{type(model).__name__} has a DFA head of its own, which decides its points and its output. Leave out "
                "points= and output=, or take the head out of the model."
            )
        if own is not None:
            attachment.head = own
        else:
            hooked = points_to_hook(model, method, points)
            attachment.head = new_head(model, hooked)
            hook_up(attachment, hooked, output)
        take_over(attachment, batch_dims)
        attachment.method = method
    except DFAError:
        attachment.detach()
        raise
    attachment.tape.scoped = True
    at_return = own is None and output is None
    attachment.enter(attachment.head if at_return else None)
    return attachment


def refuse_attached(model: nn.Module, method: Method) -> None:
    """One attachment at a time, in the whole of a model."""
    for name, module in model.named_modules():
        if attachment_of(module) is not None:
            raise DFAError(
                f"{name or type(model).__name__!r} is attached already. Switch it with attachment.method = "
                f"{method.value!r}, or call attachment.detach() first."
            )


def own_points(model: nn.Module) -> dict[str, DFALayer]:
    return {name: module for name, module in model.named_modules() if isinstance(module, DFALayer)}


def own_head(model: nn.Module) -> DFA | None:
    """The model's own `DFA` module, if it has one."""
    heads = {name: module for name, module in model.named_modules() if isinstance(module, DFA)}
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


def points_to_hook(model: nn.Module, method: Method, patterns: Sequence[str] | str | None) -> dict[str, nn.Module]:
    """The submodules that the patterns name; none where the model's own `DFALayer`s are the points."""
    if patterns is not None:
        return find_modules(model, [patterns] if isinstance(patterns, str) else patterns)
    if method.cuts and not own_points(model):
        raise PointError(no_points(model, method))
    return {}


def new_head(model: nn.Module, hooked: Mapping[str, nn.Module]) -> DFA | None:
    """A head outside the model; None where there is nothing to feed."""
    points = [DFALayer(name) for name in hooked] or list(own_points(model).values())
    return DFA(points, batch_dims=None) if points else None


def take_over(attachment: Attachment, batch_dims: BatchDims) -> None:
    """Set the head and its points up as asked, remembering how they were."""
    head = attachment.head
    if head is None:
        return
    attachment.remember(head, "feedback", "feedback_matrix", "batch_dims")
    attachment.remember(head.tape, "method", "scoped")
    names = {id(point): name for name, point in own_points(attachment.model).items()}
    for point in head.points:
        if id(point) not in names:
            attachment.remember(point, "name", "batch_dims")
        point.name = names.get(id(point), point.name)
    if attachment.feedback != head.feedback:
        head.feedback, head.feedback_matrix = attachment.feedback, None
    points = {point.label: point for point in head.points}
    if isinstance(batch_dims, Mapping):
        for name, dims in batch_dims.items():
            if name not in points:
                raise PointError(
                    f"batch_dims names {name!r}, which is no feedback point. {suggest(name, list(points))}"
                )
            points[name].batch_dims = dims
    elif batch_dims is not None:
        head.batch_dims = batch_dims


def hook_up(attachment: Attachment, hooked: Mapping[str, nn.Module], output: str | None) -> None:
    """Bring the outputs of the hooked submodules to the tape, and that of a named one to the head."""
    head, model = attachment.head, attachment.model
    if head is None:
        return
    for point, submodule in zip(head.points, hooked.values(), strict=False):
        attachment.hook(submodule, PointHook(point))
    if output is not None:
        attachment.hook(output_module(model, output), HeadHook(head, f"the output of {output!r}"))


def output_module(model: nn.Module, name: str) -> nn.Module:
    modules = {key: module for key, module in model.named_modules() if key}
    if name not in modules:
        raise PointError(
            f"output {name!r} is no submodule of {type(model).__name__}. {suggest(name, modules)} Without output=, "
            "the error is taken at the model's return value."
        )
    return modules[name]
