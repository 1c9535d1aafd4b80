"""The handle on an attached model: switch its rule, suspend it, save its feedback, detach it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tinydfa.attaching import model_forward
from tinydfa.attaching.hooks import HeadHook, PointHook
from tinydfa.attaching.leftover import Leftover, gradients_kept
from tinydfa.attaching.naming import matching, no_points
from tinydfa.attaching.order import Order
from tinydfa.errors import DFAError, PointError
from tinydfa.feedback.drawn import Feedback
from tinydfa.feedback.projectors import effective, fingerprint
from tinydfa.head import Head
from tinydfa.layerwise.swap import Swap, refuse_other_layers
from tinydfa.memory.choice import Memory, refuse_rule
from tinydfa.names import Method
from tinydfa.passes.forward_pass import BatchDims, Link, Rows, Settings
from tinydfa.points import DFALayer
from tinydfa.rules import Backprop, Rule, find_rule
from tinydfa.surroundings.guards import guard
from tinydfa.surroundings.wrappers import unwrapped

SampleIndex = Tensor | tuple[Tensor | None, Tensor]
ALIKE = 0.9  # least cosine of the rows of a projector's effective matrix with those it had when it was saved


class Plan(NamedTuple):
    """What `attach` found out about a model before it touches it."""

    head: Head | None  # the one that feeds the points
    hooks: Sequence[tuple[nn.Module, PointHook | HeadHook]]
    at_return: HeadHook | None  # takes the error at the model's return value
    own_points: dict[str, DFALayer]  # that stand in the model, by name
    batch_dims: BatchDims  # of the head; None: as it is
    point_dims: dict[str, tuple[int, ...]]  # of points that have their own, by label


class Attachment:
    """A rule at work on a model; made by `attach`.

    Attributes:
        model: The model.
        head: The head that feeds the points (None where a layer-wise rule needs no points).
        feedback: What the feedback is drawn from.
    """

    def __init__(
        self, model: nn.Module, rule: Rule, feedback: Feedback, plan: Plan, memory: Memory | None = None
    ) -> None:
        self.model, self.head, self.feedback = model, plan.head, feedback
        self.link = plan.head.link if plan.head is not None else Link(Settings(rule=Backprop(), feedback=feedback))
        self._rule: Rule = Backprop()
        self._memory = memory
        self._handles: list[RemovableHandle] = []
        self.at_return: HeadHook | None = plan.at_return  # takes the error at the model's return value
        self.own_forward: Callable[..., Any] | None = None  # of the instance, before it was attached
        self._at_work = False
        self.leftover: Leftover = ()  # gradients that an optimizer may go on using
        self._before: list[tuple[Any, dict[str, Any]]] = []
        self._swap: Swap | None = None
        self._settled: set[str] = set()  # modules that the user was told of, or that need no telling
        self._drawn: dict[str, Tensor] = {}  # random matrices of the layers under layer-wise rules, and their passes
        if memory is not None:
            refuse_rule(memory.choice, rule)
        try:
            self._take_over(plan)
            self._set(rule)
            self.link.scoped, self.link.model, self.link.memory = True, model, memory
            self.own_forward = model_forward.take_over(model, rule.name)
            self._at_work = True
            self._swap_layers(rule)
        except DFAError:
            self.detach()
            raise
        vars(model)["_attachment"] = self

    @property
    def rule(self) -> Rule:
        """The rule in force."""
        return self._rule

    @property
    def method(self) -> str:
        """The name of the rule in force; assign a rule, its class or its name to switch."""
        name = self._rule.name
        return Method(name) if name in list(Method) else name

    @method.setter
    def method(self, rule: Rule | type[Rule] | str) -> None:
        found = find_rule(rule)
        if self._memory is not None:
            refuse_rule(self._memory.choice, found)
        self._set(found)
        if self._at_work:
            model_forward.use(self.model, self._rule.name)

    @property
    def points(self) -> dict[str, int | None]:
        """The feedback points and their widths (None before the first pass)."""
        return {point.label: point.width for point in self.head.points} if self.head is not None else {}

    @property
    def target(self) -> Tensor | None:
        """For rules that read targets: class ids ``[B]`` (negative: no label) or rows ``[B, c]`` of the next pass.

        Taken by that pass, so that a target is never used twice. Rules that do not read targets ignore it. Each thread
        has its own, as each runs its own passes.
        """
        return self.link.current.target

    @target.setter
    def target(self, target: Tensor | None) -> None:
        self.link.current.target = target

    @property
    def loss_scale(self) -> float | None:
        """For rules that do not carry a factor on the loss, under a gradient scaler: ``scaler.get_scale()``."""
        return self.link.settings.loss_scale

    @loss_scale.setter
    def loss_scale(self, scale: float | None) -> None:
        self.link.change(loss_scale=scale)

    @contextmanager
    def backprop(self) -> Iterator[None]:
        """Inside this block the model trains by plain backpropagation."""
        rule = self._rule
        if rule.layerwise:
            self.method = Backprop()
        try:
            with self.link.backprop():
                yield
        finally:
            if rule.layerwise:
                self.method = rule

    @contextmanager
    def samples(self, rows: SampleIndex | Mapping[str, SampleIndex]) -> Iterator[None]:
        """Say which sample each row of the points belongs to, for this thread's forward passes inside this block.

        Args:
            rows: For all points, or by name or pattern of the point, one of

                - an index ``[rows]`` int64: for each row of the point the row of the output it belongs to (nodes of
                  several graphs), or -1 for a row that receives nothing;
                - a mask of the point's rows, bool: False where a row receives nothing (padding);
                - a pair of indices, where no row of the output stands for a row of the point (encoder and decoder of
                  unequal length, feature maps of other resolutions): the group of each row of the point ``[rows]``
                  (None: row g is group g), and the group of each row of the output ``[B]``. A row then receives the
                  sum of its group's signals, divided by the square root of their number.

        Raises:
            PointError: A name matches no feedback point.
        """
        self.link.current.rows = self._rows_by_label(rows) if isinstance(rows, Mapping) else _rows(rows)
        try:
            yield
        finally:
            self.link.current.rows = None

    def effective_feedback(self) -> Tensor | None:
        """F, ``[c, D]``: the matrix in force; that of a projector, by unit vectors. None before the first pass."""
        head = self.head
        if head is None:
            return None
        if self._rule.learns and head.learner is not None:
            return head.learner.matrix.clone()
        if head.link.settings.feedback.projector is None:
            return None if head.feedback_matrix is None else head.feedback_matrix.clone()
        if head.size is None:
            return None
        return effective(head.link.settings.feedback.projector, *head.size)

    def detach(self) -> None:
        """Leave the model as it was before `attach`."""
        self._swap_back()
        for handle in self._handles:
            handle.remove()
        if self._at_work:
            model_forward.give_back(self.model, self.own_forward)
        self._at_work = False
        vars(self.model).pop("_attachment", None)
        for thing, attributes in reversed(self._before):
            for name, value in attributes.items():
                setattr(thing, name, value)
        self.link.model = self.link.order = None
        if self.head is not None:
            self.link.change()  # as the settings are that were put back
        self._handles, self._before = [], []
        self._rule = Backprop()

    def state_dict(self) -> dict[str, Any]:
        """Rule, seed and feedback: what the model's own `state_dict` does not hold."""
        self._drawn.update(self._swap.passes() if self._swap is not None else {})
        head = self.head
        matrix = head.feedback_matrix if head is not None else None
        return {
            "method": self._rule.name,
            "seed": self.feedback.seed,
            "feedback": self.feedback_options(),
            "feedback_matrix": None if matrix is None else matrix.clone(),
            "learner": None if head is None or head.learner is None else head.learner.state_dict(),
            "forwards": 0 if head is None else head.forwards,
            "projector": self._fingerprint(),
            "layerwise": {name: tensor.clone() for name, tensor in self._drawn.items()},
        }

    def feedback_options(self) -> dict[str, Any]:
        """What the feedback is drawn and scaled by, apart from its seed, as plain values."""
        return self.feedback.options

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved rule and its feedback, also before the model has run.

        Raises:
            DFAError: It was saved under a rule that this attachment does not know, or another projector.
        """
        rule = self._rule if state["method"] == self._rule.name else find_rule(state["method"])
        if self.head is not None and state["feedback_matrix"] is not None:
            self.head.feedback_matrix = state["feedback_matrix"].clone()
        if self.feedback.projector is None:
            self.feedback = replace(self.feedback, seed=state["seed"])
        if self.head is not None:
            self.head.feedback = self.feedback
            self.head.load_learner(rule, state.get("learner"))
            self.head.forwards = state.get("forwards", 0)
        self._compare(state.get("projector"))
        self._set(Backprop())  # swaps back, so that the swap below takes over what was saved
        self._drawn = {name: tensor.clone() for name, tensor in state["layerwise"].items()}
        if rule.layerwise:
            refuse_other_layers(self.model, self._drawn)
        self.method = rule

    def _set(self, rule: Rule) -> None:
        if rule.cuts and self.head is None:
            raise PointError(no_points(self.model, rule.name))
        if rule.learns and self.feedback.projector is not None:
            raise DFAError(
                f"{rule} changes its feedback matrix, and a projector has none. Use a rule that does not learn, or "
                "leave the projector out."
            )
        self._swap_back()
        if self._at_work:
            self._swap_layers(rule)
        self.link.change(rule=rule)
        self._rule = rule
        self.leftover = gradients_kept(self.model, rule)

    def _swap_layers(self, rule: Rule) -> None:
        """Give the layers their B, after the model has its forward: the model may itself be a layer."""
        if rule.layerwise:
            with torch.inference_mode(False):
                self._swap = Swap(self.model, rule, self.feedback, self._drawn, self._settled)

    def _swap_back(self) -> None:
        if self._swap is not None:
            self._swap.undo()
            self._swap = None

    def _take_over(self, plan: Plan) -> None:
        """Set the head and its points up as planned, remembering how they were."""
        for point in plan.own_points.values():
            self._remember(point, "name", "batch_dims", "link", "is_output")
        head = plan.head
        if head is None:
            return
        self._remember(head, "feedback_matrix", "learner", "forwards")
        self._remember(head.link, "settings", "scoped", "memory")
        names = {id(point): name for name, point in plan.own_points.items()}
        for point in head.points:
            if id(point) not in names:
                self._remember(point, "name", "batch_dims")
            point.name = names.get(id(point), point.name)
        head.adopt()
        if self.feedback != head.feedback:
            head.feedback, head.feedback_matrix = self.feedback, None
        if plan.batch_dims is not None:
            head.batch_dims = plan.batch_dims
        for point in head.points:
            point.batch_dims = plan.point_dims.get(point.label, point.batch_dims)
        for module, hook in plan.hooks:
            self._handles.append(module.register_forward_hook(hook))
        self.link.order = Order([(module, at) for (module, _), at in zip(plan.hooks, self._handles, strict=True)])
        self._handles += guard(self.model)

    def _remember(self, thing: Any, *attributes: str) -> None:
        """Note what `detach` is to put back."""
        self._before.append((thing, {name: getattr(thing, name) for name in attributes}))

    def _rows_by_label(self, rows: Mapping[str, SampleIndex]) -> dict[str, Rows]:
        labels = list(self.points)
        return {label: _rows(index) for name, index in rows.items() for label in matching(name, labels, "samples")}

    def _fingerprint(self) -> Tensor | None:
        head = self.head
        if head is None or head.size is None or self.feedback.projector is None:
            return None
        return fingerprint(self.feedback.projector, *head.size)

    def _compare(self, saved: Tensor | None) -> None:
        """Refuse a projector that is not the one a state was saved with."""
        projector = self.feedback.projector
        if (saved is None) != (projector is None):
            raise DFAError(
                "the state was saved " + ("without a projector" if saved is None else "with a projector")
                + " in place of the matrix, and this attachment is otherwise. Attach as it was then."
            )  # fmt: skip
        if saved is None or self.head is None or self.head.size is None:
            return
        rows, columns = self.head.size
        alike = torch.nn.functional.cosine_similarity(fingerprint(projector, rows, columns), saved, dim=1)
        if float(alike.min()) < ALIKE:
            raise DFAError(
                f"the projector {projector!r} is not the one that the state was saved with: some rows of their "
                f"effective matrices have a cosine of {float(alike.min()):.2f}. Use the same device and seed."
            )

    def __repr__(self) -> str:
        points = ", ".join(f"{name} ({width})" for name, width in self.points.items())
        return f"Attachment(method={self._rule}, points=[{points}])"


def attachment_of(model: nn.Module) -> Attachment | None:
    """The attachment at work on `model` (also on a copy of an attached model), or None."""
    attachment: Attachment | None = vars(unwrapped(model)).get("_attachment")
    return attachment


def _rows(index: SampleIndex) -> Rows:
    return Rows(*index) if isinstance(index, tuple) else Rows(index)
