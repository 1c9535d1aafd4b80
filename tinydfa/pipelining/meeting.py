"""What the stages find out about one another before the first gradient: sizes of the whole, and whether they agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tinydfa.errors import DFAError, PointError
from tinydfa.feedback.drawn import Feedback
from tinydfa.passes.shapes import error_of, sample_dims
from tinydfa.pipelining.fed import Columns, Shape, shapes_of, sizes
from tinydfa.pipelining.learning import StageLearner, new_learner
from tinydfa.pipelining.points import Passed
from tinydfa.rules import Learning, Rule


class Agreed(NamedTuple):
    """What a stage knows of the whole."""

    shape: tuple[int, int]  # of a microbatch's error, [B, c]
    dtype: torch.dtype  # of the encoded error
    columns: Columns
    matrix: Any  # the stage's own columns of F, or the projector
    learner: StageLearner | None  # what changes them, under a rule that learns
    shapes: list[list[Shape]]  # of what passes the points of every stage


def describe(
    module: nn.Module, points: Sequence[Passed], batch_dims: tuple[int, ...] | None, error: Tensor | None, mixes: bool
) -> dict[str, Any]:
    """What one stage tells the others.

    Args:
        module: The stage's.
        points: Its first forward pass.
        batch_dims: As the user gave them.
        error: e at the output of the last stage, or anything of its shape and type; else None.
        mixes: The rule makes something else of fewer samples.
    """
    found: dict[str, Any] = {"points": shapes_of(points), "weights": fingerprints(module), "mixes": mixes}
    found["output"] = None
    if error is not None:
        size = error_of(batch_dims, [error])
        found["output"] = (size.samples, size.width, sample_dims(batch_dims, error), error.dtype)
    return found


def agree(stages: Sequence[dict[str, Any]], mine: int, feedback: Feedback, device: torch.device, rule: Rule) -> Agreed:
    """The whole, as one stage sees it.

    Raises:
        DFAError: The stages were made differently; a weight stands in two of them; the rule looks at all samples.
        ShapeError: A rule that learns cannot deal with an error of this width.
    """
    refuse_differences(stages)
    refuse_tied(stages)
    if stages[-1]["mixes"]:
        raise DFAError(
            f"{rule!r} makes something else of a sample's error when other samples stand beside it, and a pipeline "
            "shows it one microbatch at a time. Give tdfa a threshold: TernaryDFA(threshold=...); leave out the "
            "similarity of les; or use one microbatch."
        )
    samples, outputs, dims, dtype = stages[-1]["output"]
    shapes = [stage["points"] for stage in stages]
    widths = [[width for _, _, width in sizes(of_stage, dims)] for of_stage in shapes]
    flat = [width for of_stage in widths for width in of_stage]
    if not flat:
        raise PointError("no stage has a feedback point that is not the output itself, so that nothing is broadcast.")
    shared = feedback.shared and not rule.learns
    largest = max(flat)
    total = largest if shared else sum(flat)
    first = 0 if shared else sum(sum(of_stage) for of_stage in widths[:mine])
    used = replace(feedback, shared=False, scaling="none") if rule.learns else feedback
    columns = Columns(outputs, largest, total, first, dims, used)
    own = max(widths[mine], default=0) if shared else sum(widths[mine])
    matrix, learner = own_columns(feedback, columns, own, device), None
    if isinstance(rule, Learning) and rule.learns:
        learner = begun(rule, matrix, feedback, columns, [name for name, *_ in shapes[mine]], widths[mine], dtype)
        matrix = learner.matrix
    return Agreed((samples, outputs), dtype, columns, matrix, learner, shapes)


def own_columns(feedback: Feedback, columns: Columns, own: int, device: torch.device) -> Any:
    """A stage's columns of the matrix that one process would draw; the projector, where there is one."""
    if feedback.projector is not None:
        return feedback.projector
    whole = feedback.draw(columns.outputs, columns.total)
    return whole[:, columns.first : columns.first + own].contiguous().to(device)


def begun(
    rule: Learning,
    matrix: Tensor,
    feedback: Feedback,
    columns: Columns,
    names: Sequence[str],
    widths: Sequence[int],
    dtype: torch.dtype,
) -> StageLearner:
    """What learns in a stage's columns, which take the scale of fixed feedback in, as in one process."""
    rule.check_width(columns.outputs)
    matrix, start = matrix.float(), 0
    for width in widths:
        matrix[:, start : start + width] *= feedback.scale(columns.outputs, columns.largest, width)
        start += width
    learner = new_learner(rule, matrix.to(torch.promote_types(dtype, torch.float32)), names, widths)
    learner.begin(feedback.seed, columns.first)
    return learner


def refuse_differences(stages: Sequence[dict[str, Any]]) -> None:
    for what in ("rule", "feedback", "microbatches", "overlap", "memory", "steps"):
        said = [stage[what] for stage in stages]
        if len(set(said)) > 1:
            odd = next(number for number, value in enumerate(said) if value != said[0])
            raise DFAError(
                f"stage {odd} was made with {what} {said[odd]}, and stage 0 with {said[0]}. Give all the same."
            )


def fingerprints(module: nn.Module) -> dict[str, tuple[Any, ...]]:
    """Of every matrix some numbers that tell it from others; none of those whose entries are all alike.

    Not of vectors: points of one width get one signal, so that the biases right below them may well change alike.
    """
    found = {}
    for name, weight in module.named_parameters():
        flat = weight.detach().flatten()
        if weight.dim() < 2 or flat.numel() < 2 or bool((flat == flat[0]).all()):
            continue
        exact = flat.double()
        found[name] = (tuple(weight.shape), exact.sum().item(), exact.abs().sum().item(), exact[0].item())
    return found


def refuse_tied(stages: Sequence[dict[str, Any]]) -> None:
    """Refuse a weight that stands in two stages: each would get a part of its gradient, and the two drift apart."""
    seen: dict[tuple[Any, ...], tuple[int, str]] = {}
    for number, stage in enumerate(stages):
        for name, numbers in stage["weights"].items():
            other, known = seen.setdefault(numbers, (number, name))
            if other != number:
                raise DFAError(
                    f"{known!r} of stage {other} and {name!r} of stage {number} hold the same numbers. If they are one "
                    "tied weight, each stage would train its own copy of it: untie them, or keep both in one stage. If "
                    "not, the stages were drawn from the same seed: build the whole model and split it."
                )
