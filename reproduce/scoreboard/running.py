"""One run of the scoreboard: a column's preset by one rule at one rate."""

from __future__ import annotations

import importlib
import math
from dataclasses import replace
from time import perf_counter
from typing import Any

from harness.device import pick_device
from harness.errors import NonFiniteLoss, UserError
from harness.methods import rule_of
from harness.tables import RunContext
from harness.tables.results import make_result, slim
from reproduce.scoreboard.columns import Column


def train(column: Column, method: str, rate: float, seed: int, context: RunContext) -> dict[str, Any]:
    """Train the model of a column.

    A rule that the model cannot be trained by, and a training that diverges, are results too: without numbers, and with
    the reason.

    Args:
        column: What to train.
        method: By which rule, as a row of the board calls it.
        rate: Learning rate.
        seed: Of weights, feedback and data.
        context: At scale "quick": small, on embedded data.
    """
    start = perf_counter()
    try:
        return finished(column, slim(run(column, method, rate, seed, context), seeds=0))
    except NonFiniteLoss as error:
        why = {"diverged": str(error)}
    except Exception as error:
        if not refuses(error):
            raise
        why = {"refused": str(error)}
    return make_result(
        task=column.task,
        model=column.model,
        dataset=column.dataset,
        method=column.rule(method),
        seed=seed,
        metrics={column.metric: math.nan, column.validation: math.nan},
        seconds=perf_counter() - start,
        config={"lr": rate} | why,
        device=pick_device(context.device),
    )


def refuses(error: Exception) -> bool:
    """Whether an error is the library's or a preset's word that a rule does not go with a model."""
    from tinydfa import DFAError

    return isinstance(error, DFAError | NoPlaceError)


class NoPlaceError(UserError):
    """A preset has no place for a rule."""


def run(column: Column, method: str, rate: float, seed: int, context: RunContext) -> dict[str, Any]:
    """The same, but what goes wrong is raised."""
    module = importlib.import_module(f"{column.task}.train")
    preset = preset_of(column, method, rate, context)
    options = dict(column.options)
    if context.scale == "quick":
        options |= {"dataset": "synthetic"} | dict(column.quick_options)
    else:
        options["dataset"] = column.dataset

    config = module.Config(preset=preset, seed=seed, data_dir=context.data_dir, device=context.device, **options)
    found: dict[str, Any] = module.train(config)
    return found


def preset_of(column: Column, method: str, rate: float, context: RunContext) -> Any:
    """The column's preset by a rule.

    Raises:
        NoPlaceError: the task has no place for the rule.
    """
    changes = dict(column.quick) if context.scale == "quick" else {}
    rule = column.rule(method)
    try:
        if column.task == "graphs":
            from graphs.presets import check_method

            check_method(rule)
        return replace(column.preset, method=rule, lr=rate, **changes)
    except UserError as error:
        raise NoPlaceError(str(error)) from error


def finished(column: Column, result: dict[str, Any]) -> dict[str, Any]:
    """A result with what the board wants to know besides: nats in place of perplexities, and its length in words."""
    metrics = result["metrics"]
    for part in ("val", "test"):
        if (perplexity := metrics.get(f"{part}_perplexity")) is not None:
            metrics[f"{part}_nats"] = math.log(perplexity)
    return result | {"length": column.length}


def exact_share(method: str, passes: int = 1000) -> float:
    """The share of training passes that are backpropagation's; of a rule that adapts, the most that it may come to.

    Example:
        >>> exact_share("bp"), exact_share("dfa"), exact_share("fitted(exact_every=50)")
        (1.0, 0.0, 0.02)
    """
    rule = rule_of(method)
    if not (rule.cuts or rule.layerwise):
        return 1.0
    if not rule.looks:
        return 0.0
    if rule.adapts:  # type: ignore[attr-defined]
        return 1.0 / getattr(rule, "exact_between", (1,))[0]
    return sum(rule.is_exact(number) for number in range(passes)) / passes  # type: ignore[attr-defined]
