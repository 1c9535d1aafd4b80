"""What a backward pass refuses: errors and targets that would ruin every layer below without a sound."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd import Variable

from tinydfa.errors import ErrorSignalError, MissingTargetError, ShapeError
from tinydfa.rules import Rule
from tinydfa.signals import Slot, are_rows, has_numbers

ROUNDED = 0.02  # what bfloat16 may leave of shares that add up to 1
LARGEST_ERROR = 64.0  # mean over samples of the sum of |e|; a loss of ordinary scale stays below 2


def missing_target(rule: str) -> MissingTargetError:
    return MissingTargetError(
        f"{rule} reads the targets, and this forward pass was given none. Set attachment.target = y (class ids, or "
        "rows as wide as the output) before calling the model."
    )


def refuse_several_outputs(rule: str, outputs: int) -> None:
    """A sample has one class, and a local rule reads it off every point."""
    if outputs > 1:
        raise ShapeError(
            f"{rule} reads one class a sample off every point, and the error is taken at {outputs} outputs. Take it at "
            "one: attach(..., output=...); or use a rule that sends the error (dfa, fitted, las)."
        )


def refuse_half_precision(rule: str, output: Tensor) -> None:
    """float16 comes with a loss scale, which a rule that is not linear in e would lose."""
    device = output.device.type
    half = output.dtype is torch.float16 or (
        device != "meta" and torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) is torch.float16
    )
    if half:
        raise ErrorSignalError(
            f"float16 needs a loss scale, and {rule} does not carry it to the hidden layers: unscaling would shrink "
            "their gradients to nothing. Use bfloat16, or tell the scale: attachment.loss_scale = scaler.get_scale()."
        )


def refuse_strange_target(rule: Rule, target: Tensor, error: Tensor) -> None:
    """Refuse class ids that are no class of an output ``[B, c]``; under a local rule, rows that are no classes."""
    samples, outputs = error.shape
    if not are_rows(target, samples, outputs):
        refuse_large_ids(rule.name, target.to(error.device), outputs)
    elif rule.local and samples:
        refuse_no_classes(rule.name, target, samples, outputs)


def refuse_no_classes(rule: str, target: Tensor, samples: int, outputs: int) -> None:
    rows = target.detach().reshape(samples, outputs).double()
    total = rows.sum(dim=1)
    apart = (total - 1).abs() if outputs > 1 else (total - 1).clamp_min(0)  # from shares of one class, or of several
    strange = torch.maximum((-rows).amax(dim=1), torch.minimum(apart, total.abs())).amax()

    def refuse(by: Tensor) -> None:
        if not by <= ROUNDED:
            shares = "shares of the classes, which add up to 1" if outputs > 1 else "0 or 1"
            raise ShapeError(
                f"{rule} reads class targets, and was given rows of numbers that are off by {float(by):.3g}. Pass "
                f"class ids, or {shares}; for a regression use a rule that sends the error (dfa, fitted, las)."
            )

    when_known(strange, refuse)


def refuse_large_ids(rule: str, ids: Tensor, outputs: int) -> None:
    def refuse(largest: Tensor) -> None:
        if largest >= outputs:
            raise ShapeError(
                f"{rule} was given class id {int(largest)} for an output of {outputs} classes: 0 to {outputs - 1}, or "
                "negative for no label."
            )

    if ids.numel():  # a process may have no sample of a small last batch
        when_known(ids.max(), refuse)


def refuse_strange_indices(slots: Sequence[Slot], indices: Sequence[Tensor], samples: int) -> None:
    """Refuse an index of a point's rows that is out of range; -1 means no sample."""
    if torch.compiler.is_compiling():
        return
    for number in dict.fromkeys(number for slot in slots for number in (slot.sample, slot.group) if number >= 0):
        index = indices[number]
        if bool(((index < -1) | (index >= samples)).any()):
            raise ShapeError(
                f"the index that says which sample each row of a point belongs to has entries from {int(index.min())} "
                f"to {int(index.max())}, but there are {samples} samples: 0 to {samples - 1}, or -1 for none."
            )


def checked(error: Tensor, names: str, rule: str, scale_matters: bool) -> Tensor:
    """`error` ``[B, c]``, refused if it is not finite or, where a loss scale would be lost, if it seems to carry one.

    Args:
        error: The gradient at the output.
        names: The points that are fed.
        rule: What it is made into.
        scale_matters: A factor on the loss that nobody told would do harm.
    """
    if error.dtype is torch.float16:  # overflow is how a gradient scaler finds its scale: it skips such a step itself
        return error
    if torch.compiler.is_compiling():
        return _checked(error, names, rule, scale_matters)
    if error.is_cpu and type(error) is Tensor and not scale_matters and not error.requires_grad:
        size = error.sum().item()
        if size - size == 0.0:
            return error
    check(error, names, rule, scale_matters)
    return error


def check(error: Tensor, names: str, rule: str, scale_matters: bool) -> None:
    if error.is_cuda and torch.cuda.is_current_stream_capturing():  # a graph that is replayed raises nothing
        return
    if not has_numbers(error):
        return
    if error.requires_grad:
        error = error.detach()
    total = (error.abs() if scale_matters else error).sum()
    samples = error.shape[0]
    if error.is_cpu:
        judge(total.item(), samples, names, rule, scale_matters, error)
    else:  # the error itself is not kept until the number is read
        when_known(total, lambda known: judge(float(known), samples, names, rule, scale_matters, None))


def judge(size: float, samples: int, names: str, rule: str, scale_matters: bool, error: Tensor | None) -> None:
    """Refuse an error by its sum (of magnitudes, where a loss scale matters)."""
    if size - size != 0.0:  # infinite or not a number
        refuse_broken(error, samples, names)
    if scale_matters and size > LARGEST_ERROR * samples:
        raise ErrorSignalError(
            f"the error for feedback points {names} sums to {size / samples:.3g} a sample, which looks like a loss "
            f"scale, and {rule} does not carry it to the hidden layers. Tell it: attachment.loss_scale = "
            "scaler.get_scale(); or, if the loss really is that large, attachment.loss_scale = 1.0."
        )


def refuse_broken(error: Tensor | None, samples: int, name: str) -> None:
    """Raise for an error ``[B, c]`` (None: no longer kept) whose sum is not finite, unless it is the sum alone."""
    count = ""
    if error is not None:
        broken = int((~torch.isfinite(error)).any(dim=1).sum())
        if not broken:
            return
        count = f" in {broken} of {samples} samples"
    raise ErrorSignalError(
        f"the error for feedback points {name} is not finite{count}, so every layer below would be lost in one step. "
        "Lower the learning rate, clip the loss, or look for the first layer whose output is not finite."
    )


def when_known(number: Tensor, read: Callable[[Tensor], None]) -> None:
    """Call `read` on `number`: at once on a CPU and in a forward pass, else at the end of this backward pass.

    Reading a value from the GPU synchronises with everything queued there. So it is sent right away, and at the end
    nothing but its arrival is waited for: the GPU computes the layers' gradients meanwhile.
    """
    if number.device.type == "cpu" or torch._C._current_graph_task_id() == -1:
        read(number)
    elif number.is_cuda:
        sent = number.to("cpu", non_blocking=True)
        arrival = torch.cuda.Event()
        arrival.record()

        def once_arrived() -> None:
            arrival.synchronize()
            read(sent)

        Variable._execution_engine.queue_callback(once_arrived)
    else:
        Variable._execution_engine.queue_callback(lambda: read(number))


@torch.library.custom_op("tinydfa::checked", mutates_args=())
def _checked(error: Tensor, names: str, rule: str, scale_matters: bool) -> Tensor:
    check(error, names, rule, scale_matters)
    return error.clone()


@_checked.register_fake
def _(error: Tensor, names: str, rule: str, scale_matters: bool) -> Tensor:
    return torch.empty_like(error)
