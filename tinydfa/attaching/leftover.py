"""Gradients that a rule which trains no hidden layer finds there, and which an optimizer would go on using.

``zero_grad(set_to_none=False)`` keeps them as zeros. Weight decay and momentum then move weights that nothing trains.
"""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor, nn

Leftover = tuple[tuple[str, int], ...]  # names of parameters, and which object their gradient was


def gradients_kept(model: nn.Module, rule: Any) -> Leftover:
    """The gradients that are there when `rule` begins; none where the rule trains the hidden layers."""
    if not rule.cuts or rule.broadcasts:
        return ()
    return tuple([(name, id(p.grad)) for name, p in model.named_parameters() if is_something(p.grad)])


def is_something(gradient: Tensor | None) -> bool:
    """Whether there is a gradient, and it is not zero everywhere."""
    return gradient is not None and not gradient.is_sparse and bool(gradient.any())


def still_unknown(model: nn.Module, kept: Leftover, rule: str) -> Leftover:
    """Those of `kept` that are still there; warns, and keeps none, once some were set to zero in place."""
    gradients: dict[str, Tensor | None] = {name: p.grad for name, p in model.named_parameters()}
    there = {name: gradient for name, number in kept if id(gradient := gradients.get(name)) == number}
    zero = [name for name, gradient in there.items() if not is_something(gradient)]
    if not zero:
        return tuple([(name, id(gradient)) for name, gradient in there.items()])
    more = f" and {len(zero) - 3} more" if len(zero) > 3 else ""
    warnings.warn(
        f"{rule} trains nothing below the last point, but gradients there were set to zero and kept "
        f"({', '.join(zero[:3])}{more}), so weight decay and momentum still move these weights. Use "
        "optimizer.zero_grad(set_to_none=True), torch's default, or give the optimizer only what is above the point.",
        stacklevel=6,
    )
    return ()
