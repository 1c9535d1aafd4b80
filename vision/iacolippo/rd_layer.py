"""The RD layer of iacolippo's stacking experiment: a fixed random matrix between two trained diagonals.

    a1 = D1 x        D1 = diag(d1), trained, f numbers
    a2 = R a1        R fixed, standard normal, [c, f]
    a3 = D2 a2       D2 = diag(d2), trained, c numbers; a sigmoid follows

Backpropagation sends ``R^T D2 e`` to D1, DFA sends ``B e`` with B a random matrix of its own (F of the library is B^T):

    gradient of d1 = x * (B e)        gradient of d2 = a2 * e        sums or means over samples

Why DFA fails here: feedback alignment needs weights above the point that can turn towards B (see `linear.py`), and
above D1 there is only R, which is fixed, and c numbers. However these are chosen, ``D2 R`` and B^T have a cosine of
about 1/sqrt(f) at most (`attainable_cosine`): B e has next to nothing to do with the gradient, whether the rule looks
at one sample or at all of them. The remedy keeps to fixed random matrices: R itself as the feedback (`Rule.DFA_R`).
The signal then differs from backpropagation's by D2 alone, ten numbers whose signs can be learned.

Letters: B samples, f features, c outputs.
"""

from __future__ import annotations

from enum import StrEnum

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinydfa import Attachment, DFALayer, Feedback, Method, attach


class Rule(StrEnum):
    """How D1 learns; D2 always learns by its gradient."""

    BP = "bp"
    DFA = "dfa"
    DFA_R = "dfa-r"  # DFA with R as the feedback
    SHALLOW = "shallow"  # not at all

    @property
    def method(self) -> Method:
        """The library's method for it."""
        return Method.DFA if self is Rule.DFA_R else Method(self.value)


class RDLayer(nn.Module):
    """``[B, f]`` to logits ``[B, c]``; d1, R and d2 standard normal, from torch's global generator."""

    r: Tensor

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.d1 = nn.Parameter(torch.randn(features))
        self.register_buffer("r", torch.randn(outputs, features))
        self.d2 = nn.Parameter(torch.randn(outputs))
        self.point = DFALayer()

    def forward(self, x: Tensor) -> Tensor:
        """``d2 * (R (d1 * x))`` for every sample."""
        return self.d2 * F.linear(self.point(self.d1 * x), self.r)


def attach_rule(layer: RDLayer, rule: Rule, seed: int = 0) -> Attachment:
    """Make `layer` learn by `rule`; a feedback of its own is standard normal, unscaled, drawn from `seed`."""
    attachment = attach(
        layer, rule.method, feedback=Feedback(distribution="gaussian", scaling="none", seed=seed, shared=True)
    )
    if rule is Rule.DFA_R:
        assert attachment.head is not None
        attachment.head.feedback_matrix = layer.r.clone()
    return attachment


def attainable_cosine(r: Tensor, feedback: Tensor) -> float:
    """The largest cosine that ``D2 R`` can have with a feedback matrix, over all diagonals D2.

    The best D2 projects each row of the feedback onto the same row of R. For independent Gaussian matrices that leaves
    about 1/sqrt(f).

    Args:
        r: R, ``[c, f]``.
        feedback: B^T, ``[c, f]``.

    Example:
        >>> attainable_cosine(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[-3.0, 0.0], [4.0, 0.0]]))
        0.6000000238418579
    """
    along = (F.normalize(r, dim=1) * feedback).sum(dim=1)
    return float(along.norm() / feedback.norm())
