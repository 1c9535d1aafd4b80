"""A network whose middle layer loses part of its gradients, and how well DFA's gradients agree with backpropagation's.

Three hidden layers of tanh, w wide. The middle one keeps a share b / w of the entries of its backward gradients: of
its input, its weight and its bias. Which ones is drawn once. As in the release of arXiv 1906.04554 there are feedback
points after the second and third tanh only: the first layer learns by backpropagation through the masked one.

**Alignment** is the mean cosine over samples between the two gradients at the output of each tanh. The release
measures them on two models whose masks were drawn separately, so that alignment 1 is about b / w times what the layers
do. We report this ("1") and the cosine under one and the same mask ("1, same mask").

Letters: B samples, f input features, w width, b size of the bottleneck, K classes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import UserError
from tinydfa import Attachment, DFALayer
from vision.losses import Loss

MASK_SEED = 10_000  # added to the run's: masks share no random numbers with weights and feedback


class MaskedLinear(nn.Linear):
    """A linear layer whose gradients keep only some of their entries; its output is that of any linear layer.

    Args:
        features: Inputs.
        outputs: Outputs.
        size: Entries kept, on average, of `features`: each entry of a gradient is kept with chance size / features.
        samples: The largest batch; the mask of the input's gradient is drawn for every place in it.
        seed: Of the masks. At one seed a smaller size keeps a subset of what a larger one keeps.

    Raises:
        UserError: `size` is not in 1..features; in a forward pass, a batch larger than `samples`.
    """

    input_mask: Tensor  # bool [samples, features]
    reference_mask: Tensor  # the same, drawn separately, for the alignment as published
    weight_mask: Tensor  # bool [outputs, features]
    bias_mask: Tensor  # bool [outputs]

    def __init__(self, features: int, outputs: int, size: int, samples: int, seed: int = 0) -> None:
        super().__init__(features, outputs)
        check_size(size, features)
        generator = torch.Generator().manual_seed(MASK_SEED + seed)
        shapes = {"input": (samples, features), "weight": (outputs, features), "bias": (outputs,)}
        for name, shape in (shapes | {"reference": (samples, features)}).items():
            self.register_buffer(f"{name}_mask", torch.rand(shape, generator=generator) < size / features)

    def forward(self, input: Tensor) -> Tensor:
        """``[B, features]`` to ``[B, outputs]``."""
        if not torch.is_grad_enabled():
            return super().forward(input)
        if len(input) > len(self.input_mask):
            raise UserError(
                f"a batch of {len(input)} meets masks drawn for {len(self.input_mask)} samples. Train with batches of "
                f"{len(self.input_mask)} at most, or build the layer for larger ones."
            )
        x = MaskedGradient.apply(input, self.input_mask[: len(input)])
        weight, bias = (
            MaskedGradient.apply(self.weight, self.weight_mask),
            MaskedGradient.apply(self.bias, self.bias_mask),
        )
        return F.linear(x, weight, bias)

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Inside this block the input's gradient is masked as the release's backpropagated model masks it."""
        self.input_mask, self.reference_mask = self.reference_mask, self.input_mask
        try:
            yield
        finally:
            self.input_mask, self.reference_mask = self.reference_mask, self.input_mask


class MaskedGradient(torch.autograd.Function):
    """Identity whose gradient is multiplied by a mask."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(mask)
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,), (mask,) = gradients, ctx.saved_tensors
        return gradient * mask, None


def bottleneck_net(features: int, classes: int, width: int, size: int, samples: int, seed: int = 0) -> nn.Sequential:
    """The network: ``[B, *shape]`` to logits ``[B, K]``. Weights come from torch's global generator.

    Args:
        features: f.
        classes: K.
        width: w.
        size: b.
        samples: The largest batch.
        seed: Of the masks.

    Raises:
        UserError: `size` is not in 1..width.
    """
    layers: dict[str, nn.Module] = {
        "flat": nn.Flatten(),
        "first": nn.Linear(features, width),
        "tanh1": nn.Tanh(),
        "middle": MaskedLinear(width, width, size, samples, seed),
        "tanh2": nn.Tanh(),
        "point2": DFALayer(),
        "third": nn.Linear(width, width),
        "tanh3": nn.Tanh(),
        "point3": DFALayer(),
        "top": nn.Linear(width, classes),
    }
    return nn.Sequential(OrderedDict(layers))


def alignments(model: nn.Sequential, attachment: Attachment, x: Tensor, y: Tensor, loss_fn: Loss) -> dict[str, float]:
    """Cosine between the gradients of the attached method and of backpropagation, by number of the tanh.

    Args:
        model: From `bottleneck_net`.
        attachment: Its method is compared.
        x: Samples ``[B, *shape]``, no more than there are masks for.
        y: Class ids ``[B]``.
        loss_fn: See `vision.losses`.

    Returns:
        "1", "2", "3": as published, with separate masks; "1, same mask".
    """
    middle = model.middle
    assert isinstance(middle, MaskedLinear)
    ours = tanh_gradients(model, x, y, loss_fn)
    with attachment.backprop():
        same = tanh_gradients(model, x, y, loss_fn)
        with middle.reference():
            separate = tanh_gradients(model, x, y, loss_fn)
    found = {str(n): mean_cosine(*pair) for n, pair in enumerate(zip(ours, separate, strict=True), start=1)}
    return found | {"1, same mask": mean_cosine(ours[0], same[0])}


def tanh_gradients(model: nn.Module, x: Tensor, y: Tensor, loss_fn: Loss) -> tuple[Tensor, ...]:
    """Gradient at the output of every tanh, first to last, ``[B, w]`` each."""
    seen: list[Tensor] = []
    tanhs = [module for module in model.modules() if isinstance(module, nn.Tanh)]
    hooks = [tanh.register_forward_hook(lambda module, inputs, output: seen.append(output)) for tanh in tanhs]
    try:
        loss = loss_fn(model(x), y)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.autograd.grad(loss, seen)


def mean_cosine(a: Tensor, b: Tensor) -> float:
    """Mean cosine of the rows of two matrices; a row of zeros has 0 with any other, and two do not count.

    Example:
        >>> mean_cosine(torch.tensor([[1.0, 0], [0, 0], [2, 0]]), torch.tensor([[3.0, 3], [0, 0], [0, 0]]))
        0.3535533905932738
    """
    tiny = torch.finfo(torch.float64).tiny
    counted = a.any(dim=1) | b.any(dim=1)
    cosine = (F.normalize(a.double(), eps=tiny) * F.normalize(b.double(), eps=tiny)).sum(dim=1)
    return cosine[counted].mean().item() if counted.any() else 0.0


def check_size(size: int, width: int) -> None:
    """Raise `UserError` unless the bottleneck is between 1 and the layer's width."""
    if not 1 <= size <= width:
        raise UserError(f"a bottleneck of {size}: a layer {width} wide keeps 1 to {width} entries. Choose another.")
