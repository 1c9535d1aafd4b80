"""What learns in the feedback: the matrices, memory and moments of a `tinydfa.rules.Learning` rule on one model.

A backward pass shows every point's error and value. At the end of the pass the moments are added up; after every
`every`-th pass they are averaged over the processes and the rule changes the feedback. The feedback is float32, or
float64 where the error is, and changes in place, so that graphs that hold it see it change.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import torch
from torch import Tensor, distributed
from torch.autograd import Variable

from tinydfa.errors import DFAError
from tinydfa.feedback.drawn import generator_named
from tinydfa.rules import Learning, Probed, Rule, Seen
from tinydfa.signals import Slot, gather, spread

Moments = dict[str, dict[str, Tensor]]  # by point

_LEARNERS: WeakValueDictionary[int, Learner] = WeakValueDictionary()
_HANDLES = itertools.count()
NO_TASK = -1  # of the engine: no backward pass is running


@dataclass
class ExactPasses:
    """When the exact passes of a rule come that adapts (`tinydfa.rules.Learning.adapts`)."""

    period: int  # training passes from one to the next, as things are
    next: int = 0  # the number of the first training pass that may be exact
    count: int = 0  # so far

    def passed(self, number: int) -> None:
        """Training pass `number` is exact; if it never comes to its backward pass, the period stays."""
        self.next, self.count = number + self.period, self.count + 1


class Learner:
    """The feedback of a rule that learns, ``[c, D]``, with columns of its own for every point."""

    averages: ClassVar[bool] = True  # over the processes, which all have the same points

    def __init__(self, rule: Rule, matrix: Tensor, columns: dict[str, tuple[int, int]]) -> None:
        self.rule: Any = rule  # a Learning rule
        self.matrix = matrix
        self.columns = columns  # first column and width of each point
        self.memory: Moments = {name: {} for name in columns}
        self.number = 0  # of the training pass in progress, of a rule that looks
        self.exact = ExactPasses(getattr(rule, "exact_every", 0))
        self.awaiting: tuple[int, dict[str, list[Probed]]] = (-1, {})  # a pass that was probed, and what it showed
        self.passes = 0  # backward passes since the feedback changed
        self.gathered: Moments = {}  # of those passes
        self.fresh: Moments = {}  # of the pass in progress
        self.task = NO_TASK  # of the engine
        self._register()

    def _register(self) -> None:
        self.handle = next(_HANDLES)
        _LEARNERS[self.handle] = self

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._register()  # a copy learns for itself

    def begin(self, seed: int, first: int = 0) -> None:
        """Give every point what the rule's memory of it begins with.

        Args:
            seed: Of the feedback.
            first: Column of the whole feedback at which these begin.
        """
        for name, (start, width) in self.columns.items():
            begun = self.rule.begins(width, generator_named("memory", seed, first + start))
            self.memory[name] = {what: tensor.to(self.matrix) for what, tensor in begun.items()}

    def see(self, seen: Seen) -> None:
        """Show the rule one point, and note its moments."""
        self.note(seen.name, self.rule.moments(seen))

    def note(self, name: str, moments: dict[str, Tensor]) -> None:
        """Add to the moments of one point; in a forward pass, whoever began it says when it ends."""
        task = torch._C._current_graph_task_id()
        if task != self.task:  # whatever is left is of a backward pass that raised
            self.task, self.fresh = task, {}
            if task != NO_TASK:
                Variable._execution_engine.queue_callback(self.finish)
        add(self.fresh.setdefault(name, {}), moments)

    def finish(self) -> None:
        """The end of a backward pass."""
        self.gather()
        self.passes += 1
        if self.passes >= self.rule.every:
            self.step()

    def forget(self) -> None:
        """Drop what is left of a forward pass that raised."""
        self.fresh, self.task = {}, NO_TASK

    def gather(self) -> None:
        """Keep the moments of the pass in progress."""
        fresh, self.fresh, self.task = self.fresh, {}, NO_TASK
        for name, moments in fresh.items():
            add(self.gathered.setdefault(name, {}), moments)

    def answers_of(self, number: int) -> dict[str, list[Probed]]:
        """What a pass's probe showed, by point; empty for a pass without one, or if it was asked for before."""
        awaited, answers = self.awaiting
        if awaited != number:
            return {}
        self.awaiting = -1, {}
        return answers

    def look(self, shown: Moments) -> None:
        """Let the rule change the feedback by what a look has shown of every point."""
        for name, moments in shown.items():
            add(self.gathered.setdefault(name, {}), moments)
        self.step()

    def look_at_exact(self, shown: Moments, number: int) -> None:
        """As `look`, by the exact pass `number`; a rule that adapts then says when the next one is due."""
        self.look(shown)
        if self.rule.adapts:
            self.exact.period = self.rule.period(self.exact.period, self.memory)
            self.exact.next = number + self.exact.period

    @torch.no_grad()
    def step(self) -> None:
        """Let the rule change the feedback by the moments gathered."""
        gathered, self.gathered, self.passes = self.gathered, {}, 0
        with in_full(self.matrix):
            self._change(gathered)

    def _change(self, gathered: Moments) -> None:
        if self.averages:
            average([tensor for moments in gathered.values() for tensor in moments.values()])
        for name, moments in gathered.items():
            if not moments or not all(bool(tensor.isfinite().all()) for tensor in moments.values()):
                continue  # nothing shown, or an overflow, which a gradient scaler finds itself and skips the step
            start, width = self.columns[name]
            self.rule.update(self.matrix.data[:, start : start + width], moments, self.memory[name])

    def feedback_of(self, name: str) -> Tensor:
        """A point's own columns, ``[c, d]``."""
        start, width = self.columns[name]
        return self.matrix.detach()[:, start : start + width]

    def state_dict(self) -> dict[str, Any]:
        """Feedback, memory, and what is gathered for the next change; tensors are copied."""
        return {
            "rule": self.rule.name,
            "matrix": self.matrix.clone(),
            "columns": {name: list(place) for name, place in self.columns.items()},
            "memory": copied(self.memory),
            "gathered": copied(self.gathered),
            "passes": self.passes,
            "exact": asdict(self.exact),
        }

    @classmethod
    def of(cls, rule: Rule, state: dict[str, Any], like: Tensor | None = None) -> Learner:
        """The learner that gave `state`, its feedback in the type and place of `like` (None: of the state's).

        Raises:
            DFAError: it is of another rule.
        """
        if state["rule"] != rule.name:
            raise DFAError(f"the saved feedback learned by {state['rule']}, and this attachment trains by {rule.name}.")
        columns = {name: (start, width) for name, (start, width) in state["columns"].items()}
        learner = cls(rule, state["matrix"].to(state["matrix"] if like is None else like).clone(), columns)
        device = None if like is None else like.device
        learner.memory, learner.gathered = copied(state["memory"], device), copied(state["gathered"], device)
        learner.passes = state["passes"]
        learner.exact = ExactPasses(**state["exact"]) if "exact" in state else learner.exact
        return learner


def in_full(like: Tensor) -> AbstractContextManager[Any]:
    """Inside this block products are of the types of their factors, whatever autocast is on around it."""
    return torch.autocast(like.device.type, enabled=False)


def add(total: dict[str, Tensor], moments: dict[str, Tensor]) -> None:
    for name, tensor in moments.items():
        total[name] = total[name] + tensor if name in total else tensor


def copied(moments: Moments, device: torch.device | None = None) -> Moments:
    return {
        point: {name: tensor.to(device).clone() for name, tensor in of_point.items()}
        for point, of_point in moments.items()
    }


def average(tensors: Sequence[Tensor]) -> None:
    """Replace tensors by their mean over all processes, in place; nothing where there is one process."""
    number = processes()
    if number == 1:
        return
    for tensor in tensors:
        distributed.all_reduce(tensor)
        tensor.div_(number)


def processes() -> int:
    """How many train the model."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def show(
    handle: int,
    loss_scale: float | None,
    encoded: Tensor,
    values: Sequence[Tensor],
    indices: Sequence[Tensor],
    slots: Sequence[Slot],
    number: int,
) -> Tensor:
    """Let a learner see one pass; returns `encoded`. A compiler does not look into it."""
    names = "\n".join([slot.name for slot in slots])
    widths, sample, group = [s.width for s in slots], [s.sample for s in slots], [s.group for s in slots]
    see = _show if torch.compiler.is_compiling() else _see
    scale = loss_scale or 1.0
    shown: Tensor = see(encoded, list(values), list(indices), names, widths, sample, group, scale, handle, number)
    return shown


def learner_of(handle: int) -> Learner:
    return _LEARNERS[handle]


def number_of(handle: int | None) -> int:
    """Of the training pass in progress."""
    return 0 if handle is None or torch.compiler.is_compiling() else _LEARNERS[handle].number


def _see(
    encoded: Tensor,
    values: Sequence[Tensor],
    indices: Sequence[Tensor],
    names: str,
    widths: Sequence[int],
    sample: Sequence[int],
    group: Sequence[int],
    loss_scale: float,
    handle: int,
    number: int,
) -> Tensor:
    learner = _LEARNERS[handle]
    answers = learner.answers_of(number)
    if learner.rule.awaits_error and not answers:
        return encoded
    with torch.no_grad(), in_full(learner.matrix):
        error = encoded.detach().to(learner.matrix) / loss_scale
        for place, name in enumerate(names.split("\n")):
            value = values[place].detach().to(learner.matrix).reshape(-1, widths[place])
            own = at_rows(error, len(value), sample[place], group[place], indices)
            learner.see(Seen(name, own, value, probed=tuple(answers.get(name, ()))))
    return encoded


def at_rows(error: Tensor, rows: int, sample: int, group: int, indices: Sequence[Tensor]) -> Tensor:
    """What of an error ``[B, c]`` reaches each row of a point, ``[rows, c]``; the numbers are those of its slot."""
    own = gather(error, indices[group]) if group >= 0 else error
    return spread(own, rows, indices[sample] if sample >= 0 else None)


@torch.library.custom_op("tinydfa::show", mutates_args=())
def _show(
    encoded: Tensor,
    values: Sequence[Tensor],
    indices: Sequence[Tensor],
    names: str,
    widths: Sequence[int],
    sample: Sequence[int],
    group: Sequence[int],
    loss_scale: float,
    handle: int,
    number: int,
) -> Tensor:
    return _see(encoded, values, indices, names, widths, sample, group, loss_scale, handle, number).clone()


@_show.register_fake
def _(
    encoded: Tensor,
    values: Sequence[Tensor],
    indices: Sequence[Tensor],
    names: str,
    widths: Sequence[int],
    sample: Sequence[int],
    group: Sequence[int],
    loss_scale: float,
    handle: int,
    number: int,
) -> Tensor:
    return torch.empty_like(encoded)


__all__ = ["Learner", "Learning", "learner_of", "number_of", "show"]
