"""What a stage's part of the feedback learns: columns of its own points, by a rule of `tinydfa.rules.Learning`.

A step of the pipeline counts as one pass of the rule: moments of its microbatches add up, and the feedback changes at
the end of the step, as it does in one process that is given the whole batch. A state is that of one process, or a part.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tinydfa.errors import DFAError
from tinydfa.feedback.learner import Learner, add, in_full
from tinydfa.feedback.local import classes_at_rows
from tinydfa.rules import Here, Learning, Probed, Seen
from tinydfa.signals import spread

State = dict[str, Any]  # of a learner


class StageLearner(Learner):
    """The learner of one stage: nothing is averaged, for no other process has these points."""

    averages = False

    def seer(self, encoded: Tensor, probed: Mapping[str, Sequence[Probed]]) -> Callable[[str, Tensor], None]:
        """What shows the rule the points of one microbatch in an ordinary step, by name and rows ``[rows, d]``.

        Args:
            encoded: s, ``[B, c]``.
            probed: What noise has shown of the same rows.
        """
        rule: Learning = self.rule
        shows = rule.every > 0 and (bool(probed) or not rule.awaits_error)
        error = encoded.detach().to(self.matrix) if shows else encoded

        def see(name: str, rows: Tensor) -> None:
            if not shows:
                return
            with torch.no_grad(), in_full(self.matrix):
                value = rows.to(self.matrix)
                seen = Seen(name, spread(error, len(value)), value, probed=tuple(probed.get(name, ())))
                add(self.fresh.setdefault(name, {}), rule.moments(seen))

        return see

    def maker(self, target: Tensor, factor: float) -> Callable[[str, Tensor], Tensor]:
        """What makes the signals of one microbatch under a local rule, by name and rows ``[rows, d]``.

        Args:
            target: The classes of the samples as shares, ``[B, c]``.
            factor: On every signal.
        """
        rule: Any = self.rule
        target = target.detach().to(self.matrix)

        def make(name: str, rows: Tensor) -> Tensor:
            with torch.no_grad(), in_full(self.matrix):
                own = classes_at_rows(target, len(rows), -1, -1, ())
                here = Here(name, rows.to(self.matrix), own, self.feedback_of(name), self.memory[name])
                signal, moments = rule.at_point(here)
                if rule.every > 0:
                    add(self.fresh.setdefault(name, {}), moments)
                made: Tensor = signal * factor
                return made

        return make

    def end_step(self) -> None:
        """All microbatches of a step are done."""
        if self.fresh:
            self.finish()


def new_learner(rule: Any, matrix: Tensor, names: Sequence[str], widths: Sequence[int]) -> StageLearner:
    """The learner of points that stand side by side in `matrix`, ``[c, D]`` of the stage."""
    return StageLearner(rule, matrix, side_by_side(names, widths))


def side_by_side(names: Sequence[str], widths: Sequence[int]) -> dict[str, tuple[int, int]]:
    """First column and width of every point, in the order of `names`.

    Example:
        >>> side_by_side(["a", "b"], [3, 2])
        {'a': (0, 3), 'b': (3, 2)}
    """
    starts = itertools.accumulate(widths, initial=0)
    return dict(zip(names, zip(starts, widths, strict=False), strict=True))


def part_of(state: State, names: Sequence[str]) -> State:
    """What a learner's state holds of some points, side by side in their order.

    Raises:
        DFAError: One of them is not there.
    """
    missing = [name for name in names if name not in state["columns"]]
    if missing:
        raise DFAError(
            f"the saved feedback knows no point {missing[0]!r}; it has {', '.join(map(repr, state['columns']))}. The "
            "stages must keep the names of the whole model's points, and have the same ones."
        )
    places = [state["columns"][name] for name in names]
    parts = [state["matrix"][:, start : start + width] for start, width in places]
    matrix = torch.cat(parts, dim=1) if parts else state["matrix"][:, :0]
    own_places = side_by_side(names, [width for _, width in places])
    columns = {name: list(place) for name, place in own_places.items()}
    own = {key: {name: state[key][name] for name in names if name in state[key]} for key in ("memory", "gathered")}
    return {"rule": state["rule"], "matrix": matrix, "columns": columns, "passes": state["passes"]} | own


def joined(states: Sequence[State]) -> State:
    """The state of one process, made of those of all stages.

    Raises:
        DFAError: Two stages have a point of the same name.
    """
    found: State = states[0] | {"columns": {}, "memory": {}, "gathered": {}}
    found["matrix"] = torch.cat([state["matrix"].to(states[0]["matrix"].device) for state in states], dim=1)
    first = 0
    for number, state in enumerate(states):
        for name, (start, width) in state["columns"].items():
            if name in found["columns"]:
                raise DFAError(
                    f"stage {number} has a feedback point {name!r}, and so has one below it: what they have learned "
                    "could not be told apart. Keep the names of the whole model."
                )
            found["columns"][name] = [first + start, width]
        for key in ("memory", "gathered"):
            found[key] = found[key] | state[key]
        first += state["matrix"].shape[1]
    return found


def renamed(state: State, names: Mapping[str, str]) -> State:
    """A state whose points go by other names; those that `names` leaves out keep theirs."""
    by_point = ("columns", "memory", "gathered")
    return state | {key: {names.get(name, name): held for name, held in state[key].items()} for key in by_point}
