"""What a backward pass refuses: errors and targets that would ruin every layer below without a sound."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import Variable

from tinydfa.errors import ErrorSignalError, MissingTargetError, ShapeError
from tinydfa.methods import Method

LARGEST_ERROR = 64.0  # mean over samples of the sum of |e|; a loss of ordinary scale stays below 2


def missing_target() -> MissingTargetError:
    return MissingTargetError(
        "drtp projects the targets, and this forward pass was given none. Set attachment.target = y (class ids, or "
        "rows as wide as the output) before calling the model."
    )


def refuse_half_precision(method: Method, output: Tensor) -> None:
    """float16 comes with a loss scale, which a method that is not linear in e would lose."""
    device = output.device.type
    half = output.dtype is torch.float16 or (
        torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) is torch.float16
    )
    if half:
        raise ErrorSignalError(
            f"float16 needs a loss scale, and {method} does not carry it to the hidden layers: unscaling would shrink "
            "their gradients to nothing. Use bfloat16, or tell the scale: attachment.loss_scale = scaler.get_scale()."
        )


def refuse_large_ids(ids: Tensor, outputs: int) -> None:
    def judge(largest: Tensor) -> None:
        if largest >= outputs:
            raise ShapeError(
                f"drtp was given class id {int(largest)} for an output of {outputs} classes: 0 to {outputs - 1}, or "
                "negative for no label."
            )

    when_known(ids.max(), judge)


def checked(error: Tensor, name: str, method: Method, loss_scale: float | None) -> Tensor:
    """`error` ``[B, c]``, refused if it is not finite or, where a loss scale would be lost, if it seems to carry one.

    Args:
        error: The gradient at the output.
        name: The points that are fed.
        method: What it is made into.
        loss_scale: The loss scale, if it was told.
    """
    scale_matters = method.ignores_loss_scale and loss_scale is None
    if error.dtype is torch.float16:  # overflow is how a gradient scaler finds its scale: it skips such a step itself
        return error
    if torch.compiler.is_compiling():
        return _checked(error, name, str(method), scale_matters)
    check(error, name, str(method), scale_matters)
    return error


def check(error: Tensor, name: str, method: str, scale_matters: bool) -> None:
    if error.is_cuda and torch.cuda.is_current_stream_capturing():  # a graph that is replayed raises nothing
        return
    if error.requires_grad:
        error = error.detach()
    samples = error.shape[0]
    known = error if error.device.type == "cpu" else None  # elsewhere it is not kept until the number is read

    def judge(total: Tensor) -> None:
        size = float(total)
        if size - size != 0.0:  # infinite or not a number
            refuse_broken(known, samples, name)
        if scale_matters and size > LARGEST_ERROR * samples:
            raise ErrorSignalError(
                f"the error for feedback points {name} sums to {size / samples:.3g} a sample, which looks like a loss "
                f"scale, and {method} does not carry it to the hidden layers. Tell it: attachment.loss_scale = "
                "scaler.get_scale(); or, if the loss really is that large, attachment.loss_scale = 1.0."
            )

    when_known((error.abs() if scale_matters else error).sum(), judge)


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


def when_known(number: Tensor, judge: Callable[[Tensor], None]) -> None:
    """Call `judge` on `number`: at once on a CPU, else at the end of this backward pass.

    Whoever reads a number from a GPU waits for all that the GPU was given before. So it is sent right away, and at the
    end nothing but its arrival is waited for: the GPU has the layers' gradients to work on meanwhile.
    """
    if number.device.type == "cpu":
        judge(number)
    elif number.is_cuda:
        sent = number.to("cpu", non_blocking=True)
        arrival = torch.cuda.Event()
        arrival.record()

        def once_arrived() -> None:
            arrival.synchronize()
            judge(sent)

        Variable._execution_engine.queue_callback(once_arrived)
    else:
        Variable._execution_engine.queue_callback(lambda: judge(number))


@torch.library.custom_op("tinydfa::checked", mutates_args=())
def _checked(error: Tensor, name: str, method: str, scale_matters: bool) -> Tensor:
    check(error, name, method, scale_matters)
    return error.clone()


@_checked.register_fake
def _(error: Tensor, name: str, method: str, scale_matters: bool) -> Tensor:
    return torch.empty_like(error)
