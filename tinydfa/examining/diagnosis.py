"""What `doctor` found: data for tests, a table for people."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from tinydfa.examining.needs import Needs

# What docs/what-to-try.md says and measures, in its order.
BELOW_NORM = "take the error below the last norm, by output=, and put no point above it: no F stands in for a norm"
POST_NORM = "place the norms after the sums (post-norm): signals keep their size from block to block"
ADVICE = (
    BELOW_NORM,
    "let the feedback learn: fitted, or fdfa without any backpropagation",
    POST_NORM,
    "use fewer points: one after the first block leaves the blocks above it to backpropagation",
    "try a third of the learning rate and three times it",
)


class Status(StrEnum):
    """What trains a parameter."""

    METHOD = "method"  # the signal of the method in force
    BP = "bp"  # exactly the backpropagated gradient
    ZERO = "zero"  # a gradient, but all zeros
    NONE = "none"  # no gradient at all
    FROZEN = "frozen"  # asked for none


class Fault(StrEnum):
    """What can be wrong."""

    CUT_OFF = "cut off from every gradient"
    ZERO_GRADIENT = "gradient is zero"
    TRAINED_BY_BP = "trained by backpropagation"
    UNFED_POINT = "feedback point without a head"
    NOT_RUN = "feedback point that did not run"
    COMPILE_DIFFERS = "compiled step differs from eager"
    COMPILE_FAILED = "does not compile"
    AUTOCAST_DIFFERS = "autocast changes the gradient"
    AUTOCAST_FAILED = "does not run under autocast"
    RANKS_DIFFER = "feedback differs between ranks"


@dataclass(frozen=True)
class Finding:
    """One thing to change: what, where, and how."""

    fault: Fault
    where: tuple[str, ...]
    repair: str

    def __str__(self) -> str:
        shown = ", ".join(self.where[:6]) + (f" and {len(self.where) - 6} more" if len(self.where) > 6 else "")
        return f"{self.fault}: {shown}. {self.repair}"


@dataclass
class Diagnosis:
    """The state of a model on one batch.

    Attributes:
        method: The method in force.
        parameters: What trains each parameter.
        points: Width of every feedback point (None: it did not run, or is at the output).
        at_output: Points that are the model's output: their layer gets the error itself, and they feed nothing.
        crossed: Points that backpropagation leads around; None where the method cuts nothing.
        shared: Parameters below a point that a layer above the points uses as well, such as a table of words that is
            also the output layer: they get the signal from below and the error's own gradient from above.
        waiting: Parameters that get a gradient once a matrix above them is no longer zero (LoRA's B, at its start); the
            same is true of backpropagation.
        agreement: Smallest cosine over parameters between the eager float32 gradients and those of a compiled step
            and of a bfloat16 autocast step (absent where not tried).
        feedback_bytes: Memory of all feedback matrices.
        projector: What stands in the place of a feedback matrix; empty where there is a matrix.
        looks: Of a rule that looks at some passes, how often it has; empty for others.
        input_gradients: Layers whose input gradient is computed, a product each, by backpropagation and by the method.
        memory: What a step keeps for its backward pass, by block; None where nothing is cut.
        advice: What to try if the model learns too little; of rules whose feedback learns, where to take the error.
        findings: What to change; empty when all is well.
    """

    method: str
    parameters: dict[str, Status] = field(default_factory=dict)
    points: dict[str, int | None] = field(default_factory=dict)
    at_output: tuple[str, ...] = ()
    crossed: tuple[str, ...] | None = None
    shared: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    agreement: dict[str, float] = field(default_factory=dict)
    feedback_bytes: int = 0
    projector: str = ""
    looks: str = ""
    input_gradients: tuple[int, int] = (0, 0)
    memory: Needs | None = None
    advice: tuple[str, ...] = ()
    findings: list[Finding] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        return not self.findings

    def faults(self) -> set[Fault]:
        return {finding.fault for finding in self.findings}

    def _crossing(self) -> list[str]:
        """What backpropagation does at the points, in one line."""
        if self.crossed is None:
            cut = f"{self.method} cuts no gradient at its points" if self.points else ""
            return [cut] if cut else []
        lines = [f"backpropagation leads around: {', '.join(self.crossed)}"] if self.crossed else []
        lines = lines or ["no gradient crosses a point"]
        if self.shared:
            lines += [f"used below and above the points, and trained from both: {', '.join(self.shared)}"]
        return lines

    def _saved(self) -> list[str]:
        """What the points save of backpropagation's products."""
        before, now = self.input_gradients
        if now == before and not self.points:
            return []
        text = f"input gradients: {before} products by backpropagation, {now} by {self.method}"
        if now < before or before == 0:
            return [text]
        return [
            text + ": the points save none",
            "a point saves the products of the layers right above it: in a pre-norm block place one at each norm's",
            "output and one at the block's",
        ]

    def __str__(self) -> str:
        width = max([len(name) for name in [*self.parameters, *self.points, "parameter"]])
        feedback = self.projector or f"{self.feedback_bytes / 2**20:.2f} MiB"
        lines = [f"method {self.method}; feedback {feedback}", ""]
        lines += [
            f"{'parameter':<{width}}  trained by",
            *(f"{n:<{width}}  {s}" for n, s in self.parameters.items()),
            "",
        ]
        if self.points:
            lines += [f"{'point':<{width}}  width"]
            idle = dict.fromkeys(self.at_output, "is the output: feeds nothing")
            shown = {name: idle.get(name, size or "did not run") for name, size in self.points.items()}
            lines += [*(f"{name:<{width}}  {what}" for name, what in shown.items()), ""]
        if self.waiting:
            lines += [
                f"no gradient until a matrix above is no longer zero, as in backpropagation: {', '.join(self.waiting)}"
            ]
        lines += [*self._crossing(), *([self.looks] if self.looks else []), *self._saved(), ""]
        lines += [] if self.memory is None else [str(self.memory), ""]
        lines += [f"{kind} beside eager: smallest cosine {value:.4f}" for kind, value in self.agreement.items()]
        lines += ["", *([f"! {finding}" for finding in self.findings] or ["nothing to change"])]
        if self.advice:
            lines += ["", "if it learns too little, in this order (docs/what-to-try.md):"]
            lines += [f"- {advice}" for advice in self.advice]
        return "\n".join(lines)
