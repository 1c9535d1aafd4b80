"""Feedback without any backpropagation: the mean Jacobian of the output by the points, from forward passes alone.

Every so many passes the model runs twice more without a graph: as it is, and with noise s p at every point at once
(p ``[R, d]`` standard normal, its own at each point). The output answers by ``(y' - y)/s``, and

    Ĵ = mean over rows of ((y' - y)/s)ᵀ p                                  [c, d]

has the mean Jacobian as its expectation, up to terms in s²; the other points' noise is noise.

    fdfa    F <- β F + (1 - β) Ĵ                                 Bacho and Chu 2022, arXiv 2212.07282, eq. 7 and 8
    grape   F[:, k] <- F[:, k] + lr ∇ cos(F[:, k], Ĵ[:, k]),     Caillon et al. 2026, OpenReview kasbbmwk3s
            then of length 1
    fitted_forward    as `fitted`, with the guess (e · (y' - y)/s) p in place of δ                                ours

Both papers take a Jacobian-vector product by forward-mode differentiation in place of the difference. PyTorch's
attention kernels have none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tinydfa.rules.fitted import refuse_vocabulary, remember, solve_into
from tinydfa.rules.learned import Learning, Probe, Probed, Seen
from tinydfa.rules.options import positive, share, whole

SMALLEST = 1e-12  # of a column: what is smaller has no direction


@dataclass(frozen=True, repr=False)
class Estimated(Learning):
    """What the rules of this file have in common: when and how they look.

    Args:
        probe_every: The model is probed at the end of the first and of every so-manieth training pass,
        warm: and at the end of each of so many first ones.
        size: Standard deviation of the noise, s. The model's type must resolve it.
        times: Passes with noise in a look.
        dropout: Whether the passes of a look drop out as training does; see `Probe`.
        exact_every: The first and every so-manieth training pass is one of backpropagation ("calibration"). 0: none.

    Raises:
        OptionError: an option makes no sense.
    """

    feels_loss_scale = False

    every: ClassVar[int] = 0
    probe_every: int = 100  # type: ignore[misc]
    warm: int = 20
    size: float = 1e-2
    times: int = 1
    dropout: bool = False
    exact_every: int = 0  # type: ignore[misc]

    def __post_init__(self) -> None:
        whole(self, "probe_every", self.probe_every, least=1)
        whole(self, "warm", self.warm, least=0)
        positive(self, "size", self.size)
        whole(self, "times", self.times, least=1)
        whole(self, "exact_every", self.exact_every, least=0)

    @property
    def probe(self) -> Probe:  # type: ignore[override]
        return Probe(self.size, self.times, self.dropout)

    def probes(self, number: int) -> bool:
        return number < self.warm or super().probes(number)

    def moments(self, seen: Seen) -> dict[str, Tensor]:
        return {}  # an exact pass trains, and that is all

    def probe_moments(self, probed: Probed) -> dict[str, Tensor]:
        rows = probed.noise.new_tensor(len(probed.noise))
        return {"rows": rows, "answer": probed.change.T @ probed.noise}


@dataclass(frozen=True, repr=False)
class FDFA(Estimated):
    """Forward direct feedback alignment: F is the running mean of estimates of the mean Jacobian, ``[c, d]``.

    The first 1/(1 - memory) looks are averaged plainly, so that nothing is left of the random F of the beginning.

    Args:
        memory: β, what is left of F at a look.
        probe_every, warm, size, times, dropout, exact_every: See `Estimated`.
    """

    name = "fdfa"
    label = "FDFA"
    colour = "#44AA99"
    explained = (
        "F is the mean Jacobian of the output by a layer, estimated now and then by two forward passes, one with "
        "noise: no backpropagation anywhere."
    )
    source = "Bacho and Chu 2022, arXiv 2212.07282; here by a difference in place of forward-mode differentiation"

    memory: float = 0.95

    def __post_init__(self) -> None:
        super().__post_init__()
        share(self, "memory", self.memory)

    def update(self, feedback: Tensor, moments: dict[str, Tensor], memory: dict[str, Tensor]) -> None:
        if not moments["rows"] > 0:
            return
        looks = memory["looks"] = memory.get("looks", torch.zeros_like(moments["rows"])) + 1
        jacobian = moments["answer"] / moments["rows"]
        feedback.lerp_(jacobian, max(1.0 / float(looks), 1.0 - self.memory))


@dataclass(frozen=True, repr=False)
class GrAPE(Estimated):
    """Every column of F turns towards that of an estimate of the mean Jacobian, and has length 1.

    Args:
        lr: Step of a column along the gradient of its cosine. That of the published loss, which is the mean over the d
            columns of a point, times d; the paper's own value is not known to us.
        probe_every, warm, size, times, dropout, exact_every: See `Estimated`.
    """

    name = "grape"
    label = "GrAPE"
    colour = "#AA4499"
    source = "Caillon, Fagnou, Delattre and Allauzen 2026, OpenReview kasbbmwk3s; here by a difference"

    probe_every: int = 1  # type: ignore[misc]
    warm: int = 0
    lr: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "lr", self.lr)

    def update(self, feedback: Tensor, moments: dict[str, Tensor], memory: dict[str, Tensor]) -> None:
        size, aim = lengths(feedback), moments["answer"]
        own, other = feedback / size, aim / lengths(aim)
        cosine = (own * other).sum(dim=0)
        turned = feedback + self.lr * (other - cosine * own) / size
        feedback.copy_(turned / lengths(turned))


@dataclass(frozen=True, repr=False)
class ForwardFitted(Estimated):
    """The F for which ``e @ F`` is nearest to an unbiased guess of backpropagation's signal, without backpropagation.

    Along the noise p of a row, the loss changes by ``e · (y' - y)/s``. That times p is the guess, as in forward
    gradients. Unlike `FDFA` it knows which errors go together with which Jacobians.

    Args:
        memory: What is left of the moments of the looks before.
        ridge: Of the solve, as a share of the mean diagonal entry of C.
        probe_every, warm, size, times, dropout, exact_every: See `Estimated`.
    """

    name = "fitted_forward"
    label = "Fitted, forward"
    colour = "#999933"
    source = "tinydfa; the guess is that of Baydin et al. 2022, arXiv 2202.08587"

    every: ClassVar[int] = 1
    awaits_error: ClassVar[bool] = True
    memory: float = 0.95
    ridge: float = 1e-2

    def __post_init__(self) -> None:
        super().__post_init__()
        share(self, "memory", self.memory)
        positive(self, "ridge", self.ridge)

    def check_width(self, outputs: int) -> None:
        refuse_vocabulary(self, outputs)

    def moments(self, seen: Seen) -> dict[str, Tensor]:
        if not seen.probed:
            return {}
        error = seen.error.double()
        guess = sum((error * p.change).sum(dim=1, keepdim=True) * p.noise for p in seen.probed) / len(seen.probed)
        return {"errors": error.T @ error, "both": error.T @ guess}

    def update(self, feedback: Tensor, moments: dict[str, Tensor], memory: dict[str, Tensor]) -> None:
        remember(memory, moments, self.memory)
        solve_into(feedback, memory, self.ridge)


def lengths(columns: Tensor) -> Tensor:
    """The length of each column, ``[d]``."""
    return columns.norm(dim=0).clamp_min(SMALLEST)
