"""A schedule of `torch.distributed.pipelining` in which no stage waits for a backward pass.

Stages, the splitting of a model and of its batch, and the transport of activations are torch's. New is what happens
after a forward pass: the last stage takes the error of the microbatch where it stands and broadcasts it, and every
stage makes its own signals of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Literal

import torch
from torch import Tensor
from torch.distributed.pipelining.schedules import PipelineScheduleSingle

from tinydfa.attaching.attach import settled_feedback
from tinydfa.errors import DFAError, PointError, ShapeError
from tinydfa.feedback.drawn import Distribution, Feedback
from tinydfa.passes.shapes import batch_first
from tinydfa.passes.undisturbed import state_kept
from tinydfa.pipelining.checks import mixes_samples, refuse_side_by_side, refuse_wrapped, spelled, trained_by
from tinydfa.pipelining.exchange import Exchange
from tinydfa.pipelining.fed import Held, Signal, Trained, backward, in_rows, shown, signals_for, trained
from tinydfa.pipelining.learning import StageLearner, State, part_of
from tinydfa.pipelining.looks.probing import Answers
from tinydfa.pipelining.looks.steps import Looks
from tinydfa.pipelining.meeting import Agreed, agree, describe
from tinydfa.pipelining.order import alive, order
from tinydfa.pipelining.points import Cut, Pass, Passed, StagePoints, Watcher
from tinydfa.pipelining.replay import Forgetting, Replays
from tinydfa.pipelining.sending import Sender
from tinydfa.pipelining.traffic import Batch, Traffic, forward_one_chunk
from tinydfa.rules import DRTP, Rule

TIMEOUT = timedelta(minutes=5)


class ScheduleDFA(PipelineScheduleSingle):
    """Train a pipeline by a rule that broadcasts the error; used as torch's own schedules are.

    Each process makes its stage and this schedule, and calls ``schedule.step(...)``: with the input on the first stage,
    with ``target=`` on the last (under drtp and les on all), with neither elsewhere. Gradients are those of one process
    with `tinydfa.attach` that accumulates the same microbatches, for the same seed of the feedback. The optimiser stays
    outside, as usual.

    Args:
        stage: `torch.distributed.pipelining.PipelineStage`, or what `pipeline(...).build_stage` makes. Every stage but
            the last ends at a feedback point: nothing flows back between stages.
        n_microbatches: M, which divides the batch.
        loss_fn: Of the last stage's return value and the target, to one number; not needed elsewhere.
        rule: A broadcasting rule, or its name: dfa, sdfa, tdfa with a threshold, drtp, one that learns its feedback (a
            step counts as one pass of it, with the whole batch; les without similarity), or one of your own.
        points: The stage's own feedback points: names or patterns of submodules; None: its `DFALayer`s.
        output: The last stage's submodule whose output takes the error; None: its head, else its return value.
        feedback: As for `tinydfa.attach`; the same at every stage.
        seed: Of the feedback, as for `tinydfa.attach`.
        batch_dims: Dimensions of the output and of every point that count samples; None: all but the output's last.
        overlap: Begin the next step when the stage's own weights are updated. Without, every stage waits at the end
            of ``step`` until all have got there: needed where a step of the optimiser looks at all stages, as clipping
            by the norm of all gradients does.
        scale_grads: The loss is a mean over the samples of a microbatch, and counts 1/M. False: a sum.
        memory: "replay": a stage keeps the inputs of its microbatches and one block's graph, and runs forward again at
            each W. None: it keeps the graphs.
        timeout: A stage that does not answer for so long ends all. A process that dies ends all at once.
        args_chunk_spec: How torch splits the arguments, as for its own schedules.
        kwargs_chunk_spec: How it splits keyword arguments.
        output_merge_spec: How it joins outputs.

    Raises:
        DFAError: A rule that does not broadcast; a stage without points or under DDP or FSDP; in the first step:
            stages that disagree, a weight in two stages, a stage that does not end at a point.
        StageLostError: Another process has died or does not answer.
    """

    def __init__(
        self,
        stage: Any,
        n_microbatches: int,
        loss_fn: Callable[..., Tensor] | None = None,
        *,
        rule: Rule | type[Rule] | str = "dfa",
        points: Sequence[str] | str | None = None,
        output: str | None = None,
        feedback: Feedback | Distribution | str | Callable[..., Any] | None = None,
        seed: int | None = None,
        batch_dims: tuple[int, ...] | None = None,
        overlap: bool = False,
        scale_grads: bool = True,
        memory: Literal["replay"] | None = None,
        timeout: timedelta = TIMEOUT,
        args_chunk_spec: Any = None,
        kwargs_chunk_spec: Any = None,
        output_merge_spec: Any = None,
    ) -> None:
        if n_microbatches < 1:
            raise DFAError(f"n_microbatches is {n_microbatches}; give at least 1.")
        if stage.is_last and loss_fn is None:
            raise DFAError("the last stage has no loss_fn, so that nothing would train. Pass loss_fn=...")
        if memory not in (None, "replay"):
            raise DFAError(f"memory={memory!r}: a stage keeps its graphs (None) or runs again ('replay').")
        specs = args_chunk_spec, kwargs_chunk_spec, output_merge_spec
        super().__init__(stage, n_microbatches, loss_fn, *specs, scale_grads=scale_grads)
        self._has_backward = False  # torch's own backward pass, that is: it neither receives nor sends gradients
        self.feedback = settled_feedback(feedback, seed)
        self.rule: Any = trained_by(rule, self.feedback)
        refuse_wrapped(stage.submod)
        self.batch_dims, self.overlap, self.memory = batch_dims, overlap, memory
        self.points = StagePoints(stage.submod, self.rule, points, output, stage.is_last)
        self.exchange = Exchange(stage, timeout)
        refuse_side_by_side(self.rule, self.exchange.ranks)
        self.sender = Sender(self.rule, self.feedback, batch_dims, n_microbatches, scale_grads)
        self.traffic = Traffic(stage, self.exchange)
        self.looks = Looks(self)
        self.replays = Replays(self.points, stage.is_last) if memory == "replay" else None
        self.agreed: Agreed | None = None
        self.forwards = 0  # steps so far, of a rule that looks at some
        self._saved: State | None = None  # what the feedback had learned, until it is known where it belongs
        self._evaluating = False
        self._held: dict[int, Held] = {}
        self._input_shape: torch.Size | None = None

    @property
    def local(self) -> bool:
        """Whether the signal is known in the forward pass, so that no microbatch is kept."""
        return self.rule.local or (isinstance(self.rule, DRTP) and type(self.rule).encode is DRTP.encode)

    def step(self, *args: Any, target: Any = None, losses: list[Any] | None = None, **kwargs: Any) -> Any:
        """Run a step on a whole batch, as `PipelineScheduleSingle.step`; gradients are added to ``.grad``.

        Raises:
            ShapeError: The batch cannot be cut into equal microbatches, or is not as large as in the first step.
        """
        if not self._evaluating and not torch.is_grad_enabled():
            raise DFAError("step() trains, and gradients are switched off here. Call eval() for losses alone.")
        for tensor in (*args, target):
            if isinstance(tensor, Tensor) and tensor.shape[0] % self._n_microbatches:
                raise ShapeError(
                    f"a batch of {tensor.shape[0]} cannot be cut into {self._n_microbatches} equal microbatches, and "
                    "a mean over unequal ones is another loss. Use drop_last=True, or another n_microbatches."
                )
        return super().step(*args, target=target, losses=losses, **kwargs)

    def eval(self, *args: Any, target: Any = None, losses: list[Any] | None = None, **kwargs: Any) -> Any:
        """Forward passes and losses of a whole batch alone."""
        self._evaluating = True
        try:
            with torch.no_grad():
                return self.step(*args, target=target, losses=losses, **kwargs)
        finally:
            self._evaluating = False

    @property
    def learner(self) -> StageLearner | None:
        """What learns in this stage's columns; None under a rule that does not learn, and before the first step."""
        return None if self.agreed is None else self.agreed.learner

    def state_dict(self) -> dict[str, Any]:
        """What decides the feedback, and what this stage's part of it has learned; a fixed matrix is drawn again."""
        learned = self._saved if self.learner is None else self.learner.state_dict()
        about = {"rule": spelled(self.rule), "feedback": spelled(self.feedback)}
        return about | {"forwards": self.forwards, "learner": learned}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state; of what was learned it may hold the points of all stages.

        Raises:
            DFAError: It was saved under another rule or feedback, or without this stage's points.
        """
        own = {"rule": spelled(self.rule), "feedback": spelled(self.feedback)}
        if {name: state[name] for name in own} != own:
            raise DFAError(
                f"the checkpoint was trained by {state['rule']} with {state['feedback']}, and this pipeline by "
                f"{own['rule']} with {own['feedback']}. Make the schedule as it was then."
            )
        self.take_over(state.get("learner"), state.get("forwards", 0))

    def take_over(self, learned: State | None, forwards: int) -> None:
        """Go on with what the feedback had learned, after so many steps."""
        self.forwards, self._saved = forwards, learned
        if self.agreed is not None:
            self.agreed = self._with_saved(self.agreed)

    def _with_saved(self, agreed: Agreed) -> Agreed:
        if agreed.learner is None or self._saved is None:
            return agreed
        state, self._saved = part_of(self._saved, list(agreed.learner.columns)), None
        learner = StageLearner.of(self.rule, state, agreed.matrix)
        if learner.matrix.shape != agreed.matrix.shape:
            raise ShapeError(
                f"the saved feedback of this stage is {tuple(learner.matrix.shape)}, and its points and the error need "
                f"{tuple(agreed.matrix.shape)}. Keep the model's widths."
            )
        return agreed._replace(learner=learner, matrix=learner.matrix)  # type: ignore[arg-type]

    def _step_microbatches(
        self,
        arg_mbs: list[Any] | None = None,
        kwarg_mbs: list[Any] | None = None,
        target_mbs: list[Any] | None = None,
        losses: list[Any] | None = None,
        return_outputs: bool = True,
        loss_kwargs: dict[str, Any] | None = None,
    ) -> None:
        arg_mbs, kwarg_mbs = self._check_inputs(arg_mbs, kwarg_mbs, target_mbs, losses)
        self._internal_losses.clear()
        self._held.clear()
        self._prepare(arg_mbs[0], kwarg_mbs[0])
        self._check_targets(target_mbs)
        batch = Batch(arg_mbs, kwarg_mbs, target_mbs, return_outputs, loss_kwargs)
        if self._evaluating:
            self.sweep(batch, [None] * self._n_microbatches)
        else:
            self._train(batch)
        self._update_losses(self._stage, losses)
        if not self.overlap and not self._evaluating:
            self.exchange.flush()

    def _train(self, batch: Batch) -> None:
        """A step: an ordinary one, or one that a rule looks at."""
        number, looks = self.forwards, self.rule.looks
        answers = self.looks.probe(batch, number) if looks and self.rule.probes(number) else None
        if looks and self.rule.is_exact(number):
            self.looks.exact(batch, number)
        else:
            self._ordinary(batch, answers)
        self.forwards = number + looks

    def _ordinary(self, batch: Batch, answers: list[Answers] | None) -> None:
        """F and W of every microbatch, in the order of the schedule."""
        stage, number = self._stage, self._n_microbatches
        actions = order(stage.num_stages, number, stage.stage_index, overlap=self.overlap, local=self.local)
        self.traffic.ask(0)
        for kind, microbatch in actions:
            if kind == "F":
                self._forward(microbatch, batch)
            else:
                self._weights(microbatch, {} if answers is None else answers[microbatch])
        self.traffic.settle()
        if self.learner is not None:
            self.learner.end_step()

    def _prepare(self, args: Any, kwargs: Any) -> None:
        """Let torch find out what the stages send each other, before the first step."""
        if self._stage.is_first and args:
            shape = args[0].shape if isinstance(args[0], Tensor) else None
            if self._input_shape not in (None, shape):
                raise ShapeError(
                    f"a microbatch is {tuple(shape or ())}, and was {tuple(self._input_shape or ())} in the first "
                    "step. The stages keep buffers of one size: use drop_last=True, or pad."
                )
            self._input_shape = shape
        if self._stage_forward_initialized:
            return
        aside = state_kept(self._stage.submod)  # torch runs the module once, on numbers that mean nothing
        with torch.no_grad(), aside, self.exchange.answering("a neighbour", beside_work=True):
            self._initialize_stage(args, kwargs)
        held = alive(self._stage.num_stages, self._n_microbatches, self._stage.stage_index, self.overlap)
        self.traffic.share_buffers(held, self._n_microbatches)

    def _check_targets(self, target_mbs: list[Any] | None) -> None:
        if target_mbs is not None or self._evaluating:
            return
        if self.local:
            raise DFAError(
                f"{self.rule} reads the targets, and stage {self._stage.stage_index} was given none. Call "
                "schedule.step(..., target=y) on every stage."
            )
        if self._stage.is_last:
            raise DFAError("the last stage was given no target. Call schedule.step(target=...) there.")

    def _run(self, microbatch: int, batch: Batch, watcher: Watcher | None, save: bool) -> Any:
        """The forward pass of a microbatch, which is passed on to the next stage."""
        if microbatch + 1 < self._n_microbatches:
            self.traffic.ask(microbatch + 1)  # it comes while this one is computed
        self.traffic.arrived(microbatch)
        with self.points.watched(watcher):
            output = forward_one_chunk(self._stage, microbatch, batch.args[microbatch], batch.kwargs[microbatch], save)
        if self.traffic.needs_gradient(microbatch) and isinstance(watcher, Cut):
            self._refuse_end()
        self.traffic.send_on(microbatch)
        return output

    def _refuse_end(self) -> None:
        number = self._stage.stage_index
        raise PointError(
            f"stage {number} does not end at a feedback point: its output depends on layers above its last one "
            f"({self.points.names[-1]!r}), which would need a gradient from stage {number + 1}. Split the model right "
            "after a feedback point, or make the stage's last layer one."
        )

    def sweep(self, batch: Batch, watchers: Sequence[Watcher | None]) -> None:
        """Forward passes alone; their losses too where somebody evaluates."""
        self.traffic.ask(0)
        for microbatch, watcher in enumerate(watchers):
            output = self._run(microbatch, batch, watcher, batch.return_outputs and self._evaluating)
            if self._evaluating:
                self._note_loss(output, batch, microbatch)
        self.traffic.settle()

    def _note_loss(self, output: Any, batch: Batch, microbatch: int) -> Tensor | None:
        """The loss of a microbatch on the last stage, if there is a target."""
        target = batch.target(microbatch)
        if not self._stage.is_last or target is None:
            return None
        loss: Tensor = self._compute_loss(output, target, batch.loss_kwargs)
        self._internal_losses.append(loss.detach())
        if batch.return_outputs:
            self._stage.output_chunks[-1] = detached(output)
        return loss

    def _forward(self, microbatch: int, batch: Batch) -> None:
        """F: the forward pass of a microbatch, and on the last stage its loss and its error."""
        first = Cut() if self.replays is None else self.replays.first()
        output = self._run(microbatch, batch, first, batch.return_outputs)
        passed = first.finish()
        if self.replays is not None and isinstance(first, Forgetting):
            self.replays.ended(first)
        loss = self._note_loss(output, batch, microbatch)
        error = None if loss is None else self.sender.error(passed, loss)
        self.meet(passed.points, error)
        encoded = self.on_its_way(error, batch.target(microbatch))
        if self.replays is not None and passed.output is not None:
            if passed.output.requires_grad:
                torch.autograd.backward([passed.output], [error])
            passed, error = Pass(passed.points, None, None), None
        self._held[microbatch] = Held(passed, first, error, encoded)

    def on_its_way(self, error: Tensor | None, target: Any) -> Callable[[], Tensor] | Tensor:
        """The encoded error of a microbatch, or what waits for it."""
        agreed = self.agreed
        assert agreed is not None
        if self.local:
            zeros = torch.zeros(agreed.shape, dtype=agreed.dtype, device=self._stage.device)
            return self.sender.encoded(zeros, target)
        if error is None:
            return self.exchange.receive(agreed.shape, agreed.dtype)
        return self.exchange.send(self.sender.encoded(self.sender.rows(error), target))

    def meet(self, points: Sequence[Passed], error: Tensor | None) -> Agreed:
        """After the first forward pass of all: the sizes of the whole, and this stage's columns of the feedback.

        Args:
            points: What passed this stage's points.
            error: e at the output of the last stage, or anything of its shape and type; else None.
        """
        if self.agreed is not None:
            return self.agreed
        mixes = error is not None and self._n_microbatches > 1 and mixes_samples(self.rule, self.sender.rows(error))
        mine = describe(self._stage.submod, points, self.batch_dims, error, mixes)
        mine |= {"rule": spelled(self.rule), "feedback": spelled(self.feedback), "memory": self.memory}
        mine |= {"microbatches": self._n_microbatches, "overlap": self.overlap, "steps": self.forwards}
        stages = self.exchange.meet(mine)
        agreed = agree(stages, self._stage.stage_index, self.feedback, self._stage.device, self.rule)
        self.agreed = self._with_saved(agreed)
        return self.agreed

    def _weights(self, microbatch: int, probed: Answers) -> None:
        """W: the gradients of the stage's weights for a microbatch, when its error has come."""
        held = self._held.pop(microbatch)
        self._add_gradients(held, held.encoded if isinstance(held.encoded, Tensor) else held.encoded(), probed)

    def _add_gradients(self, held: Held, encoded: Tensor, probed: Answers) -> None:
        agreed = self.agreed
        assert agreed is not None
        found = trained(held.passed.points, agreed.columns, encoded.shape[0])
        signal = self._signals(agreed, found, encoded, probed)
        if self.replays is not None and isinstance(held.first, Forgetting):
            self.replays.run(held.first, found, signal)
            return
        fed = []
        for point in found:
            value = held.passed.points[point.place].value
            assert value is not None
            fed.append(signal(point, batch_first(value.detach(), point.dims)))
        backward(held.passed.points, found, fed, held.passed.output, held.error)

    def _signals(self, agreed: Agreed, found: Sequence[Trained], encoded: Tensor, probed: Answers) -> Signal:
        """What makes the signals of a microbatch, and shows what passed to a rule that learns."""
        learner, number = agreed.learner, self._n_microbatches
        if self.rule.local:
            assert learner is not None
            of_sum = encoded.shape[0] * number if self.feedback.error_sum else 1
            make = learner.maker(encoded, of_sum / number)
            return lambda point, value: make(point.slot.name, in_rows(point, value)).to(value).reshape(value.shape)
        show = None if learner is None else learner.seer(encoded, probed)
        return shown(found, signals_for(found, encoded, agreed.matrix, agreed.columns), show)


def detached(output: Any) -> Any:
    return output.detach() if isinstance(output, Tensor) else output
