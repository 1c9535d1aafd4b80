"""The steps of one stage that a rule looks at (`tinydfa.rules.Learning`): when the schedule asks for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tinydfa.pipelining.learning import StageLearner
from tinydfa.pipelining.looks import probing
from tinydfa.pipelining.looks.exact import Exact, shown
from tinydfa.pipelining.meeting import Agreed
from tinydfa.pipelining.points import Watcher
from tinydfa.pipelining.traffic import Batch


class Looks:
    """What one stage does in them.

    Args:
        schedule: The `ScheduleDFA` that trains it.
    """

    def __init__(self, schedule: Any) -> None:
        self.schedule = schedule
        self._exact: Exact | None = None

    def probe(self, batch: Batch, number: int) -> list[probing.Answers]:
        """Run forward as it is and with noise, and show the rule how the output answered, microbatch by microbatch.

        Of a probe without noise, the output itself.

        Args:
            batch: The whole batch in parts.
            number: Of the step.
        """
        schedule, probe, parts = self.schedule, self.schedule.rule.probe, len(batch.args)
        stage = schedule._stage
        with probing.undisturbed(stage.submod, probe):
            plain = [probing.Plain() for _ in range(parts)]
            self._swept(batch, plain)
            agreed = schedule.meet(plain[0].points, plain[0].output)
            answers: list[probing.Answers] = [{} for _ in range(parts)]
            for mine, one in zip(answers, plain if probe.times == 0 else [], strict=False):
                output = self._told(agreed, partial(probing.output_of, one, agreed))
                mine |= {probed.name: [probed] for probed in probing.as_it_is(agreed, one, output)}
            for time in range(probe.times):
                drawn = probing.generator(schedule.feedback.seed, number, time)
                noise = probing.noises(agreed, stage.stage_index, parts, drawn)
                noisy = [probing.Noisy(part, probe.size) for part in noise]
                self._swept(batch, noisy)
                for mine, one, other in zip(answers, plain, noisy, strict=True):
                    change = self._told(agreed, partial(probing.change_of, one, other, agreed, probe.size))
                    for probed in probing.answered(agreed, one, other, change, probe.size):
                        mine.setdefault(probed.name, []).append(probed)
        if not schedule.rule.awaits_error:
            learner_of(agreed).look(probing.moments_of(agreed, answers))
        return answers

    def _swept(self, batch: Batch, watchers: Sequence[Watcher]) -> None:
        """Forward passes that all begin with the same random numbers, and leave no trace of them."""
        stage = self.schedule._stage
        devices: list[Any] = [stage.device] if stage.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            self.schedule.sweep(batch, watchers)

    def _told(self, agreed: Agreed, of_output: Callable[[], Tensor]) -> Tensor:
        """What the last stage makes of the output of a microbatch, ``[B, c]``, and tells the others."""
        exchange = self.schedule.exchange
        if self.schedule._stage.is_last:
            sent: Tensor = exchange.send(of_output())()
            return sent
        received: Tensor = exchange.receive(agreed.shape, learner_of(agreed).matrix.dtype)()
        return received

    def exact(self, batch: Batch, number: int) -> None:
        """A step of backpropagation, at whose end the rule is shown every point's exact gradient."""
        schedule = self.schedule
        if self._exact is None:
            how = schedule._n_microbatches, schedule._loss_fn, schedule.sender.averaged, schedule.exchange
            self._exact = Exact(schedule._stage, schedule.points, *how)
        noted, losses = self._exact.run(batch)
        schedule._internal_losses.extend(losses)
        schedule._stage.output_chunks[:] = self._exact.outputs
        if not schedule.rule.learns:
            return
        errors = [one.error for one in noted]
        agreed = schedule.meet(noted[0].points, errors[0])
        waiting = [schedule.on_its_way(error, batch.target(part)) for part, error in enumerate(errors)]
        encoded = [one if isinstance(one, Tensor) else one() for one in waiting]
        learner_of(agreed).look(shown(agreed, noted, encoded, schedule.feedback.seed, number))


def learner_of(agreed: Agreed) -> StageLearner:
    assert agreed.learner is not None
    return agreed.learner
