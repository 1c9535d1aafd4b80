"""In which order a stage works: its forward passes (F) and its gradients of weights (W), one of each a microbatch.

With P stages and M microbatches, F and W one unit each and no time for sending, a step takes

    2 M + P - 1            with a flush: no stage begins the next step before all have ended this one
    2 M + max(0, P - M)    without: a stage begins its next step when its own weights are updated

1F1B under backpropagation takes 3 (M + P - 1), for it waits for a gradient of the input (I) from above; ZB-H1 takes
3 M + P - 1 (arXiv 2401.10241).
"""

from __future__ import annotations

from typing import NamedTuple


class Action(NamedTuple):
    """One piece of a stage's work in a step."""

    kind: str  # "F" or "W"
    microbatch: int


def alive(stages: int, microbatches: int, stage: int, overlap: bool = True) -> int:
    """How many microbatches a stage holds at most, after their F and before their W.

    With a flush P - s at stage s, as in 1F1B. Without, P at every stage, and no order without idle time needs fewer:
    stage 0 ends at 2 M, for which the error of the last microbatch must be there at 2 M - 1. Stage s, which begins at
    s, must have done all its F by 2 M - P + s. In these 2 M - P units it can do all M of F, and M - P of W.

    Example:
        >>> [alive(4, 8, stage, overlap=False) for stage in range(4)], [alive(4, 8, stage) for stage in range(4)]
        ([4, 3, 2, 1], [4, 4, 4, 4])
    """
    return min(stages if overlap else stages - stage, microbatches)


def order(stages: int, microbatches: int, stage: int, *, overlap: bool = True, local: bool = False) -> list[Action]:
    """What a stage does in a step, in this order.

    Args:
        stages: P.
        microbatches: M.
        stage: Its number, from 0.
        overlap: Without a flush.
        local: The rule knows the signal in the forward pass (drtp, les), so that nothing is kept: W follows F.

    Example:
        >>> " ".join(f"{kind}{microbatch}" for kind, microbatch in order(3, 4, stage=1, overlap=False))
        'F0 F1 W0 F2 W1 F3 W2 W3'
    """
    ahead = 1 if local else alive(stages, microbatches, stage, overlap)
    actions = [Action("F", microbatch) for microbatch in range(ahead)]
    for microbatch in range(microbatches):
        actions.append(Action("W", microbatch))
        if microbatch + ahead < microbatches:
            actions.append(Action("F", microbatch + ahead))
    return actions
