"""A schedule of `torch.distributed.pipelining` in which no stage waits for a backward pass.

Stages, the splitting of a model and of its batch, and the transport of activations are torch's. New is what happens
after a forward pass: the last stage takes the error of the microbatch where it stands and broadcasts it, and every
stage makes its own signals of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed.pipelining.schedules import PipelineScheduleSingle

from tinydfa.attaching.attach import settled_feedback
from tinydfa.errors import DFAError, PointError, ShapeError
from tinydfa.feedback.drawn import Distribution, Feedback
from tinydfa.passes.checks import checked
from tinydfa.passes.shapes import batch_first, check_target, error_of
from tinydfa.passes.undisturbed import state_kept
from tinydfa.pipelining.checks import mixes_samples, refuse_wrapped, spelled, trained_by
from tinydfa.pipelining.exchange import Exchange
from tinydfa.pipelining.meeting import Agreed, agree, describe
from tinydfa.pipelining.order import Action, alive, order
from tinydfa.pipelining.points import Pass, StagePoints, backward
from tinydfa.rules import DRTP, Rule

TIMEOUT = timedelta(minutes=5)


class Held(NamedTuple):
    """A microbatch between its F and its W."""

    passed: Pass
    error: Tensor | None  # at the output; None below the last stage
    encoded: Callable[[], Tensor] | Tensor  # or what waits for it


class ScheduleDFA(PipelineScheduleSingle):
    """Train a pipeline by a rule that broadcasts the error; used as torch's own schedules are.

    Each process makes its stage and this schedule, and calls ``schedule.step(...)``: with the input on the first stage,
    with ``target=`` on the last (under drtp on all), with neither elsewhere. Gradients are those of one process with
    `tinydfa.attach` that accumulates the same microbatches, for the same seed of the feedback. The optimiser stays
    outside, as usual.

    Args:
        stage: `torch.distributed.pipelining.PipelineStage`, or what `pipeline(...).build_stage` makes. Every stage but
            the last ends at a feedback point: nothing flows back between stages.
        n_microbatches: M, which divides the batch.
        loss_fn: Of the last stage's return value and the target, to one number; not needed elsewhere.
        rule: A broadcasting rule, or its name: dfa, sdfa, tdfa with a threshold, drtp, or one of your own.
        points: The stage's own feedback points: names or patterns of submodules; None: its `DFALayer`s.
        output: The last stage's submodule whose output takes the error; None: its head, else its return value.
        feedback: As for `tinydfa.attach`; the same at every stage.
        seed: Of the feedback, as for `tinydfa.attach`.
        batch_dims: Dimensions of the output and of every point that count samples; None: all but the output's last.
        overlap: Begin the next step when the stage's own weights are updated. Without, every stage waits at the end
            of ``step`` until all have got there: needed where a step of the optimiser looks at all stages, as clipping
            by the norm of all gradients does.
        scale_grads: The loss is a mean over the samples of a microbatch, and counts 1/M. False: a sum.
        timeout: A stage that does not answer for so long ends all. A process that dies ends all at once.
        args_chunk_spec: How torch splits the arguments, as for its own schedules.
        kwargs_chunk_spec: How it splits keyword arguments.
        output_merge_spec: How it joins outputs.

    Raises:
        DFAError: A rule that does not broadcast, or learns its feedback; a stage without points or under DDP or FSDP;
            in the first step: stages that disagree, a weight in two stages, a stage that does not end at a point.
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
        timeout: timedelta = TIMEOUT,
        args_chunk_spec: Any = None,
        kwargs_chunk_spec: Any = None,
        output_merge_spec: Any = None,
    ) -> None:
        if n_microbatches < 1:
            raise DFAError(f"n_microbatches is {n_microbatches}; give at least 1.")
        if stage.is_last and loss_fn is None:
            raise DFAError("the last stage has no loss_fn, so that nothing would train. Pass loss_fn=...")
        specs = args_chunk_spec, kwargs_chunk_spec, output_merge_spec
        super().__init__(stage, n_microbatches, loss_fn, *specs, scale_grads=scale_grads)
        self._has_backward = False  # torch's own backward pass, that is: it neither receives nor sends gradients
        self.rule, self.feedback = trained_by(rule), settled_feedback(feedback, seed)
        refuse_wrapped(stage.submod)
        self.batch_dims, self.overlap = batch_dims, overlap
        self.points = StagePoints(stage.submod, self.rule, points, output, stage.is_last)
        self.exchange = Exchange(stage, timeout)
        self.agreed: Agreed | None = None
        self._evaluating = False
        self._receiving: dict[int, list[Any]] = {}
        self._sending: list[tuple[list[Any], Any]] = []  # and the tensors that must not go yet
        self._held: dict[int, Held] = {}
        self._input_shape: torch.Size | None = None

    @property
    def local(self) -> bool:
        """Whether the signal is known in the forward pass, so that no microbatch is kept."""
        return isinstance(self.rule, DRTP) and type(self.rule).encode is DRTP.encode

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

    def state_dict(self) -> dict[str, Any]:
        """What decides the feedback; the matrix itself is drawn from it."""
        return {"rule": spelled(self.rule), "feedback": spelled(self.feedback)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Compare a saved state with this schedule's.

        Raises:
            DFAError: It was saved under another rule or feedback.
        """
        if state != self.state_dict():
            raise DFAError(
                f"the checkpoint was trained by {state['rule']} with {state['feedback']}, and this pipeline by "
                f"{spelled(self.rule)} with {spelled(self.feedback)}. Make the schedule as it was then."
            )

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
        actions = self._actions()
        forwards = [action.microbatch for action in actions if action.kind == "F"]
        self._ask(forwards[:1])
        for action in actions:
            microbatch = action.microbatch
            if action.kind == "W":
                self._weights(microbatch)
                continue
            self._ask(forwards[1:2])  # the next one comes while this one is computed
            forwards = forwards[1:]
            target = None if target_mbs is None else target_mbs[microbatch]
            self._forward(microbatch, arg_mbs[microbatch], kwarg_mbs[microbatch], target, return_outputs, loss_kwargs)
        for work, _ in self._sending:
            self.exchange.wait(work, f"stage {self._stage.stage_index + 1}")
        self._sending.clear()
        self._update_losses(self._stage, losses)
        if not self.overlap and not self._evaluating:
            self.exchange.flush()

    def _actions(self) -> list[Action]:
        stage, number = self._stage, self._n_microbatches
        if self._evaluating:
            return [Action("F", microbatch) for microbatch in range(number)]
        return order(stage.num_stages, number, stage.stage_index, overlap=self.overlap, local=self.local)

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
        self._share_buffers()

    def _share_buffers(self) -> None:
        """Receive into as many buffers as microbatches are held at once, and one more, in place of M."""
        infos = self._stage.args_recv_info
        held = alive(self._stage.num_stages, self._n_microbatches, self._stage.stage_index, self.overlap)
        for microbatch in range(held + 1, self._n_microbatches):
            for mine, shared in zip(infos[microbatch], infos[microbatch % (held + 1)], strict=True):
                mine.buffer = shared.buffer

    def _check_targets(self, target_mbs: list[Any] | None) -> None:
        if target_mbs is not None or self._evaluating:
            return
        if self.local:
            raise DFAError(
                f"{self.rule} projects the targets, and stage {self._stage.stage_index} was given none. Call "
                "schedule.step(..., target=y) on every stage."
            )
        if self._stage.is_last:
            raise DFAError("the last stage was given no target. Call schedule.step(target=...) there.")

    def _ask(self, microbatches: list[int]) -> None:
        """Ask the stage below for the activations of a microbatch."""
        for microbatch in microbatches:
            operations = self._stage.get_fwd_recv_ops(microbatch)
            self._receiving[microbatch] = [start(operation) for operation in operations]

    def _forward(
        self,
        microbatch: int,
        args: Any,
        kwargs: Any,
        target: Any,
        return_outputs: bool,
        loss_kwargs: dict[str, Any] | None,
    ) -> None:
        """F: the forward pass of a microbatch, and on the last stage its loss and its error."""
        stage = self._stage
        self.exchange.wait(self._receiving.pop(microbatch), f"stage {stage.stage_index - 1}")
        if not self._evaluating:
            self.points.start()
        output = forward_one_chunk(stage, microbatch, args, kwargs, return_outputs)
        passed = self.points.finish()
        self._send_on(microbatch)
        loss = None
        if stage.is_last and target is not None:
            loss = self._compute_loss(output, target, loss_kwargs)
            self._internal_losses.append(loss.detach())
            if return_outputs:
                stage.output_chunks[-1] = detached(output)
        if not self._evaluating:
            self._keep(microbatch, passed, loss, target)

    def _send_on(self, microbatch: int) -> None:
        """Send a stage's output to the next stage; it must have ended at a point."""
        stage = self._stage
        outputs, _ = stage.fwd_cache[microbatch]
        if not stage.is_last and any(isinstance(t, Tensor) and t.requires_grad for t in outputs):
            raise PointError(
                f"stage {stage.stage_index} does not end at a feedback point: its output depends on layers above its "
                f"last one ({self.points.names[-1]!r}), which would need a gradient from stage "
                f"{stage.stage_index + 1}. Split the model right after a feedback point, or make the stage's "
                "last layer one."
            )
        operations = stage.get_fwd_send_ops(microbatch)
        del stage.fwd_cache[microbatch]
        self._sending = [(work, kept) for work, kept in self._sending if not all(w.is_completed() for w in work)]
        if operations:
            self._sending.append(([start(operation) for operation in operations], outputs))

    def _keep(self, microbatch: int, passed: Pass, loss: Tensor | None, target: Any) -> None:
        """Hold a microbatch until its W, and see that its error is on its way."""
        error = None
        if loss is not None:
            error = self._error(passed, loss)
        if self.agreed is None:
            self.agreed = self._meet(passed, error)
        agreed = self.agreed
        encoded: Callable[[], Tensor] | Tensor
        if self.local:
            encoded = self._encode(torch.zeros(agreed.shape, dtype=agreed.dtype, device=self._stage.device), target)
        elif error is None:
            encoded = self.exchange.receive(agreed.shape, agreed.dtype)
        else:
            encoded = self.exchange.send(self._encode(self._rows(error), target))
        self._held[microbatch] = Held(passed, error, encoded)

    def _error(self, passed: Pass, loss: Tensor) -> Tensor:
        """e at the output, in its shape. What lies above the output gets its gradients here."""
        if passed.top is None:
            raise PointError("the last stage ran without reaching the output that the error is taken at.")
        (loss / self._n_microbatches if self.scale_grads else loss).backward()
        if passed.top.grad is None:
            raise PointError("the loss does not depend on the output that the error is taken at. Name another output.")
        return passed.top.grad

    def _rows(self, error: Tensor) -> Tensor:
        """e as ``[B, c]``."""
        found = error_of(self.batch_dims, [error])
        return batch_first(error, found.dims[0]).reshape(found.samples, found.width)

    def _encode(self, error: Tensor, target: Any) -> Tensor:
        """What is projected, ``[B, c]``."""
        rule: Any = self.rule
        if self.feedback.check_finite:
            error = checked(error, "of the pipeline", rule.name, not rule.carries_loss_scale)
        if rule.needs_target:
            check_target(target, *error.shape)
        with torch.no_grad():
            encoded = rule.encode(error, target).to(error.dtype)  # which the other stages expect
        found: Tensor = encoded * (error.shape[0] * self._n_microbatches) if self.feedback.error_sum else encoded
        return found

    def _meet(self, passed: Pass, error: Tensor | None) -> Agreed:
        """After the first forward pass of all: the sizes of the whole, and this stage's columns of the feedback."""
        mixes = error is not None and self._n_microbatches > 1 and mixes_samples(self.rule, self._rows(error))
        mine = describe(self._stage.submod, passed, self.batch_dims, error, mixes) | self.state_dict()
        mine |= {"microbatches": self._n_microbatches, "overlap": self.overlap}
        return agree(self.exchange.meet(mine), self._stage.stage_index, self.feedback, self._stage.device, self.rule)

    def _weights(self, microbatch: int) -> None:
        """W: the gradients of the stage's weights for a microbatch, when its error has come."""
        held = self._held.pop(microbatch)
        self._add_gradients(held, held.encoded if isinstance(held.encoded, Tensor) else held.encoded())

    def _add_gradients(self, held: Held, encoded: Tensor) -> None:
        agreed = self.agreed
        assert agreed is not None
        how = self.feedback, agreed.columns, agreed.batch_dims
        backward(held.passed, held.error, encoded, agreed.matrix, *how)


def start(operation: Any) -> Any:
    """Begin to send or to receive."""
    peer = {"group_dst" if operation.op is torch.distributed.isend else "group_src": operation.group_peer}
    return operation.op(operation.tensor, group=operation.group, tag=operation.tag, **peer)


def forward_one_chunk(stage: Any, microbatch: int, args: Any, kwargs: Any, save: bool) -> Any:
    """torch's, which hides what the module raised; ours is shown."""
    try:
        return stage.forward_one_chunk(microbatch, args, kwargs, save_forward_output=save)
    except RuntimeError as error:
        if isinstance(error.__cause__, DFAError):
            raise error.__cause__ from None
        raise


def detached(output: Any) -> Any:
    return output.detach() if isinstance(output, Tensor) else output
