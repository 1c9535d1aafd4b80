"""Signals of a rule that makes them at the points (`tinydfa.rules.Local`), from the targets and what passed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tinydfa.feedback.learner import average, in_full, learner_of, processes
from tinydfa.rules import Here
from tinydfa.signals import Slot

SOME = 1e-6  # rows a process, where none has any


def local_signals(
    handle: int,
    target: Tensor,
    values: Sequence[Tensor],
    indices: Sequence[Tensor],
    slots: Sequence[Slot],
    factor: float,
    learns: bool,
    after: Tensor,
) -> list[Tensor]:
    """A signal for every point, like what passed it; the learner sees the pass. A compiler does not look into it.

    Args:
        handle: Of the learner.
        target: The classes of the samples as shares, ``[B, c]``.
        values: What passed the points, batch dimensions in front.
        indices: Those that the slots refer to.
        slots: The points.
        factor: On every signal.
        learns: The rule may change its feedback at the end of this pass.
        after: Part of the backward pass: else a compiler would move all of this into the forward pass.
    """
    names = "\n".join([slot.name for slot in slots])
    widths, sample, group = [s.width for s in slots], [s.sample for s in slots], [s.group for s in slots]
    make = _local if torch.compiler.is_compiling() else _made
    found: list[Tensor] = make(
        target, list(values), list(indices), names, widths, sample, group, factor, handle, learns, after
    )
    return found


def _made(
    target: Tensor,
    values: Sequence[Tensor],
    indices: Sequence[Tensor],
    names: str,
    widths: Sequence[int],
    sample: Sequence[int],
    group: Sequence[int],
    factor: float,
    handle: int,
    learns: bool,
    after: Tensor,
) -> list[Tensor]:
    learner, several = learner_of(handle), learns and processes() > 1
    found, counts = [], []
    with torch.no_grad(), in_full(learner.matrix):
        target = target.detach().to(learner.matrix)
        for place, (name, value) in enumerate(zip(names.split("\n"), values, strict=True)):
            rows = value.detach().to(learner.matrix).reshape(-1, widths[place])
            own = classes_at_rows(target, len(rows), sample[place], group[place], indices)
            here = Here(name, rows, own, learner.feedback_of(name), learner.memory[name])
            signal, moments = learner.rule.at_point(here)
            if learns:
                learner.note(name, moments)
            found.append(signal * factor)
            if several:
                counts.append((own.sum(dim=1) > 0).sum())
        if several:
            found = of_all(found, torch.stack(counts).to(learner.matrix))
        return [signal.to(value).reshape(value.shape) for signal, value in zip(found, values, strict=True)]


def of_all(signals: Sequence[Tensor], counts: Tensor) -> list[Tensor]:
    """Signals whose mean over processes is that of the rows of all, which may not have as many each.

    Args:
        signals: Gradients of the mean over this process's rows with a target.
        counts: How many of them there are, for each signal.
    """
    everywhere = counts.clone()
    average([everywhere])
    return [signal * share for signal, share in zip(signals, counts / everywhere.clamp_min(SOME), strict=True)]


def classes_at_rows(target: Tensor, rows: int, sample: int, group: int, indices: Sequence[Tensor]) -> Tensor:
    """The target of each row of a point, ``[rows, c]``: its sample's; of a group of samples their mean; 0 for none."""
    own = mean_of_groups(target, indices[group]) if group >= 0 else target
    if sample >= 0:
        index = indices[sample]
        return own[index.clamp_min(0)] * (index >= 0).to(own.dtype)[:, None]
    return own[:rows] if group >= 0 else own.repeat_interleave(rows // max(len(own), 1), dim=0)


def mean_of_groups(target: Tensor, group: Tensor) -> Tensor:
    """The mean over those samples of every group that have a target: ``[B, c]``, row g of group g."""
    there = (group >= 0).to(target.dtype)[:, None]
    total = torch.zeros_like(target).index_add_(0, group.clamp_min(0), target * there)
    shares = total.sum(dim=1, keepdim=True)
    return torch.where(shares > 0, total / shares, 0.0)


_local = torch.library.custom_op("tinydfa::local", _made, mutates_args=())


@_local.register_fake
def _(target: Tensor, values: Sequence[Tensor], *others: Any) -> list[Tensor]:
    return [value.new_empty(value.shape) for value in values]
