"""`attach` makes a model train by a method, without changing it.

Points are the model's own `DFALayer`s or any of its submodules, by name. Hooks bring the points' outputs to the tape
and the model's output to the head; they are objects, not closures, so that a copied model carries copies of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from tinydfa.dfa import DFA
from tinydfa.errors import DFAError, PointError, UnregisteredPointError
from tinydfa.feedback import Distribution, Feedback
from tinydfa.hooks import Begin, End, HeadHook, PointHook, attachment_of
from tinydfa.layerwise import passes, swap, swap_back
from tinydfa.methods import Method
from tinydfa.naming import find_modules, no_points, suggest
from tinydfa.points import DFALayer, Tape

BatchDims = tuple[int, ...] | Mapping[str, tuple[int, ...]] | None


class Attachment:
    """A method at work on a model; made by `attach`.

    Attributes:
        model: The model.
        head: The head that feeds the points (None where a layer-wise method needs no points).
        target: For `drtp`: class ids ``[B]`` (negative: no label) or rows ``[B, c]`` of the next forward pass. Taken
            by that pass, so a target is never used twice.
        loss_scale: For `sdfa`, `tdfa`, `drtp` under a gradient scaler: ``scaler.get_scale()``.
    """

    def __init__(self, model: nn.Module, head: DFA | None, feedback: Feedback) -> None:
        self.model = model
        self.head = head
        self.feedback = feedback
        self.tape = head.tape if head is not None else Tape(Method.BP)
        self._undo: list[Callable[[], None]] = []
        self._swapped: dict[str, nn.Module] = {}
        self._walk_state: dict[str, Tensor] = {}
        self._method = Method.BP

    @property
    def method(self) -> Method:
        """The method in force; assign a method or its name to switch."""
        return self._method

    @method.setter
    def method(self, method: Method | str) -> None:
        new = Method.parse(method)
        if new.cuts and self.head is None:
            raise PointError(no_points(self.model, new))
        if self._swapped:
            swap_back(self._swapped, self._walk_state)
            self._swapped = {}
        if new.layerwise:
            self._swapped = swap(self.model, new, self.feedback, self._walk_state)
        self.tape.method = new
        self._method = new

    @property
    def points(self) -> dict[str, int | None]:
        """The feedback points and their widths (None before the first pass that trains)."""
        return {point.label: point.width for point in self.head.points} if self.head is not None else {}

    @property
    def target(self) -> Tensor | None:
        return self.tape.target

    @target.setter
    def target(self, target: Tensor | None) -> None:
        self.tape.target = target

    @property
    def loss_scale(self) -> float | None:
        return self.tape.loss_scale

    @loss_scale.setter
    def loss_scale(self, scale: float | None) -> None:
        self.tape.loss_scale = scale

    @contextmanager
    def backprop(self) -> Iterator[None]:
        """Inside this block the model trains by plain backpropagation."""
        method = self.method
        if method.layerwise:
            self.method = Method.BP
        try:
            with self.tape.backprop():
                yield
        finally:
            if method.layerwise:
                self.method = method

    @contextmanager
    def samples(self, index: Tensor) -> Iterator[None]:
        """Say which row of the output each row of the points belongs to: ``[rows]`` int64 (nodes of several graphs)."""
        self.tape.index = index
        try:
            yield
        finally:
            self.tape.index = None

    def detach(self) -> None:
        """Leave the model as it was before `attach`."""
        if self._swapped:
            swap_back(self._swapped, self._walk_state)
            self._swapped = {}
        while self._undo:
            self._undo.pop()()
        self._method = Method.BP

    def state_dict(self) -> dict[str, Any]:
        """Method, seed and feedback: what the model's own `state_dict` does not hold."""
        self._walk_state.update(passes(self._swapped))
        matrix = self.head.feedback_matrix if self.head is not None else None
        return {
            "method": str(self.method),
            "seed": self.feedback.seed,
            "feedback_matrix": None if matrix is None else matrix.clone(),
            "layerwise": {name: tensor.clone() for name, tensor in self._walk_state.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved method and its feedback, also before the model has run."""
        if self.head is not None and state["feedback_matrix"] is not None:
            self.head.feedback_matrix = state["feedback_matrix"].clone()
        self._walk_state = {name: tensor.clone() for name, tensor in state["layerwise"].items()}
        self.method = state["method"]

    def __repr__(self) -> str:
        points = ", ".join(f"{name} ({width})" for name, width in self.points.items())
        return f"Attachment(method={self.method}, points=[{points}])"


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
        model: Any module. It must be called, ``model(x)``, not its `forward`.
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
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))
        >>> attachment = attach(net, "dfa", points=["1", "3"])
        >>> net(torch.ones(3, 4)).sum().backward()
        >>> attachment.points
        {'1': 8, '3': 8}
    """
    method = Method.parse(method)
    model = getattr(model, "_orig_mod", model)
    if attachment_of(model) is not None:
        raise DFAError(
            f"{type(model).__name__} is attached already. Switch with attachment.method = {str(method)!r}, or call "
            "attachment.detach() first."
        )
    if not isinstance(feedback, Feedback):
        feedback = Feedback(distribution=feedback or Distribution.UNIFORM, seed=seed)
    head, undo = own_head(model, feedback) if points is None and output is None else (None, [])
    if head is None:
        head, undo = new_head(model, method, points, output, feedback, batch_dims)
    attachment = Attachment(model, head, feedback)
    attachment._undo = undo
    try:
        attachment.method = method
    except DFAError:
        attachment.detach()
        raise
    tape = attachment.tape
    scoped = tape.scoped
    tape.scoped = True
    handles = [
        model.register_forward_pre_hook(Begin(attachment), prepend=True),
        model.register_forward_hook(End(tape), always_call=True),
    ]
    undo.append(lambda: setattr(tape, "scoped", scoped))
    undo.extend(handle.remove for handle in handles)
    return attachment


def own_head(model: nn.Module, feedback: Feedback) -> tuple[DFA | None, list[Callable[[], None]]]:
    """The model's own `DFA` module, if it has one, made ready for `feedback`, and how to put it back."""
    heads = {name: module for name, module in model.named_modules() if isinstance(module, DFA)}
    if not heads:
        return None, []
    if len(heads) > 1:
        raise DFAError(
            f"{type(model).__name__} has {len(heads)} DFA heads ({', '.join(map(repr, heads))}), and an attachment "
            "has one. Attach to the submodules that hold them."
        )
    (head,) = heads.values()
    fed = {id(point) for point in head.points}
    unfed = [name for name, module in own_points(model).items() if id(module) not in fed]
    if unfed:
        raise UnregisteredPointError(
            f"feedback points {', '.join(map(repr, unfed))} are not in the list of the model's head, so no signal "
            f"reaches them. It feeds: {head._names()}. Add them to DFA([...]), or remove them from the model."
        )
    names = {id(module): name for name, module in own_points(model).items()}
    old = (head.feedback, head.tape.method, [point.name for point in head.points])
    for point in head.points:
        point.name = names.get(id(point), point.name)
    if feedback != head.feedback:
        head.feedback = feedback
        head.feedback_matrix = None

    def put_back() -> None:
        head.feedback, head.tape.method = old[0], old[1]
        for point, name in zip(head.points, old[2], strict=True):
            point.name = name

    return head, [put_back]


def new_head(
    model: nn.Module, method: Method, patterns: Sequence[str] | str | None, output: str | None, feedback: Feedback,
    batch_dims: BatchDims,
) -> tuple[DFA | None, list[Callable[[], None]]]:  # fmt: skip
    """A head outside the model, hooked to its points and its output, and how to unhook it."""
    points: dict[str, DFALayer] = own_points(model) if patterns is None else {}
    hooked: dict[str, nn.Module] = {}
    if patterns is not None:
        hooked = find_modules(model, [patterns] if isinstance(patterns, str) else patterns)
        points = {name: DFALayer(name) for name in hooked}
    if not points:
        if method.cuts:
            raise PointError(no_points(model, method))
        return None, []
    by_name = batch_dims if isinstance(batch_dims, Mapping) else {}
    for name, dims in by_name.items():
        if name not in points:
            raise PointError(f"batch_dims names {name!r}, which is no feedback point. {suggest(name, list(points))}")
        points[name].batch_dims = dims
    where, module = "the model's return value", model
    if output is not None:
        where, module = f"the output of {output!r}", output_module(model, output)
    old = [(point, point.name, point.tape) for point in points.values()]
    for name, point in points.items():
        point.name = name
    head = DFA(list(points.values()), batch_dims=None if by_name else batch_dims, feedback=feedback)  # type: ignore[arg-type]
    handles = [hooked[name].register_forward_hook(PointHook(points[name])) for name in hooked]
    handles.append(module.register_forward_hook(HeadHook(head, where)))

    def release() -> None:
        for point, name, tape in old:
            point.name, point.tape = name, tape

    return head, [release, *[handle.remove for handle in handles]]


def own_points(model: nn.Module) -> dict[str, DFALayer]:
    return {name: module for name, module in model.named_modules() if isinstance(module, DFALayer)}


def output_module(model: nn.Module, name: str) -> nn.Module:
    modules = {key: module for key, module in model.named_modules() if key}
    if name not in modules:
        raise PointError(
            f"output {name!r} is no submodule of {type(model).__name__}. {suggest(name, modules)} Without output=, "
            "the error is taken at the model's return value."
        )
    return modules[name]
