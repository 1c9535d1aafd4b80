"""What a step costs by a rule beside one by backpropagation: two trainings in turns, each standing still meanwhile.

A step is what lies between the first forward pass of a module in training mode and the end of the optimiser's step, in
seconds of the processor, so that whatever else the machine does counts less. Its memory is the most that the tensors
allocated in a step take at once.
"""

from __future__ import annotations

import gc
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook

from benchmarks.allocations import peak_bytes, peak_of
from harness.device import pick_device
from harness.tables import RunContext
from harness.tables.results import make_result
from reproduce.scoreboard.columns import Column
from reproduce.scoreboard.running import exact_share, refuses, run

WARM_UP = 20  # steps: as many first ones look in the rules that estimate
STEPS = 100
PER_STEP = 4  # steps of the rule to one of backpropagation
QUICK = (1, 2)  # the same of WARM_UP and STEPS at scale "quick"


class Stopped(BaseException):
    """Ends a training that has been measured; no `except Exception` keeps it."""


class Paused:
    """A training in a thread of its own, which goes on by one step of its optimiser a call of `step`.

    Args:
        train: Trains.
    """

    def __init__(self, train: Callable[[], object]) -> None:
        self.go, self.done, self.stopped = threading.Event(), threading.Event(), False
        self.error: BaseException | None = None
        self.seconds, self.since, self.profile, self.peak = 0.0, 0.0, None, 0
        self.profiles = False
        self.thread = threading.Thread(target=self._run, args=(train,), daemon=True)

    def __enter__(self) -> Paused:
        self.hooks = [
            register_module_forward_pre_hook(self._begins),
            register_optimizer_step_post_hook(self._ends),
        ]
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped = True
        self.go.set()
        self.thread.join()
        for hook in self.hooks:
            hook.remove()

    def step(self, profiles: bool = False) -> float:
        """Go on until the optimiser has made its next step; the processor's seconds of the step.

        Raises:
            RuntimeError: the training ended, or failed.
        """
        self.profiles = profiles
        self.done.clear()
        self.go.set()
        self.done.wait()
        if self.error is not None:
            raise self.error
        return self.seconds

    def _run(self, train: Callable[[], object]) -> None:
        try:
            self._wait()
            train()
            self.error = RuntimeError("the training ended before it was measured")
        except Stopped:
            pass
        except BaseException as error:
            self.error = error
        finally:
            self.done.set()

    def _wait(self) -> None:
        self.go.wait()
        self.go.clear()
        if self.stopped:
            raise Stopped
        self.since = 0.0
        if self.profiles:
            self.profile = torch.profiler.profile(
                activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
            ).__enter__()

    def _begins(self, module: torch.nn.Module, *_: object) -> None:
        mine = threading.current_thread() is self.thread
        if mine and not self.since and module.training and torch.is_grad_enabled():
            self.since = time.thread_time()

    def _ends(self, *_: object) -> None:
        if threading.current_thread() is not self.thread:
            return
        self.seconds = time.thread_time() - self.since
        if self.profile is not None:
            self.profile.__exit__(None, None, None)
            self.peak, self.profile = peak_of(self.profile), None
        self.done.set()
        self._wait()


def measure(column: Column, method: str, context: RunContext) -> dict[str, Any]:
    """Seconds and bytes of a rule's steps, and their ratios to backpropagation's."""
    start = time.perf_counter()
    warm_up, steps = QUICK if context.scale == "quick" else (WARM_UP, STEPS)
    config: dict[str, Any] = {"warm_up": warm_up, "steps": steps}
    metrics: dict[str, Any] = {"exact_share": exact_share(column.rule(method))}
    try:
        metrics |= beside(training(column, "bp", context), training(column, method, context), warm_up, steps)
    except Exception as error:
        if not refuses(error):
            raise
        metrics, config = {"step_ratio": None}, {"refused": str(error)}
    return make_result(
        task=column.task,
        model=column.model,
        dataset=column.dataset,
        method=column.rule(method),
        seed=0,
        metrics=metrics,
        seconds=time.perf_counter() - start,
        config=config,
        device=pick_device(context.device),
    )


def training(column: Column, method: str, context: RunContext) -> Callable[[], object]:
    """The training of a column, far longer than what is measured of it, at a rate at which nothing diverges."""
    return lambda: run(column, method, column.preset.lr * 1e-3, 0, context)


def beside(reference: Callable[[], object], other: Callable[[], object], warm_up: int, steps: int) -> dict[str, float]:
    """The two in turns."""
    peak_bytes(lambda: None)  # sets the profiler up in this thread: set up in another, it reports that as an error
    with Paused(reference) as bp, Paused(other) as rule:
        for paused in (bp, rule):
            for _ in range(warm_up):
                paused.step()
        gc.disable()
        try:
            pairs = [(rule.step(), bp.step() if number % PER_STEP == 0 else None) for number in range(steps)]
        finally:
            gc.enable()
        bp.step(profiles=True)
        rule.step(profiles=True)
    seconds = statistics.fmean(one for one, _ in pairs)
    of_bp = statistics.fmean(one for _, one in pairs if one is not None)
    return {
        "step_ratio": seconds / of_bp,
        "step_seconds": seconds,
        "step_seconds_bp": of_bp,
        "memory_ratio": rule.peak / bp.peak,
        "memory_bytes": float(rule.peak),
        "memory_bytes_bp": float(bp.peak),
    }
