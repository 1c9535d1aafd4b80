"""Calibration: one step of backpropagation in many, of any rule that cuts the graph.

calibrated    every `exact_every`-th pass is exact, the others are the rule's       Caillon et al. 2026, "calibration"
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Generator, Tensor

from tinydfa.errors import OptionError
from tinydfa.rules.broadcast import DFA
from tinydfa.rules.learned import Learning, Probe, Probed, Seen
from tinydfa.rules.options import whole
from tinydfa.rules.registry import find_rule


@dataclass(frozen=True, repr=False)
class Calibrated(Learning):
    """Another rule, but one training pass in many is not cut and trains by its exact gradient.

    Args:
        rule: The other rule: an object, a class or a name.
        exact_every: The first and every so-manieth training pass is exact.

    Raises:
        OptionError: the rule cuts nothing, so that every pass is exact or none can be, or looks at exact passes itself.

    Example:
        >>> Calibrated("sdfa", exact_every=50)
        Calibrated(rule=SignDFA(), exact_every=50)
    """

    name = "calibrated"
    label = "DFA, calibrated"
    colour = "#882255"
    explained = "DFA, but one step in many is one of backpropagation."
    source = "Caillon, Fagnou, Delattre and Allauzen 2026, OpenReview kasbbmwk3s"

    rule: Any = DFA()  # noqa: RUF009
    exact_every: int = 100  # type: ignore[misc]

    def __post_init__(self) -> None:
        whole(self, "exact_every", self.exact_every, least=1)
        rule = find_rule(self.rule)
        object.__setattr__(self, "rule", rule)
        if not rule.cuts:
            raise OptionError(
                f"Calibrated: {rule} does not cut the graph, so there is no exact pass to put among its own. Pass a "
                "rule that does, such as dfa."
            )
        if getattr(rule, "exact_every", 0) > 0:
            raise OptionError(f"Calibrated: {rule} has exact passes itself. Set its own exact_every.")

    @property
    def broadcasts(self) -> bool:  # type: ignore[override]
        return self.rule.broadcasts

    @property
    def carries_loss_scale(self) -> bool:  # type: ignore[override]
        return self.rule.carries_loss_scale

    @property
    def needs_target(self) -> bool:  # type: ignore[override]
        return self.rule.needs_target

    @property
    def local(self) -> bool:  # type: ignore[override]
        return self.rule.local

    @property
    def alone(self) -> bool:
        return getattr(self.rule, "alone", True)

    @property
    def learns(self) -> bool:  # type: ignore[override]
        return self.rule.learns

    @property
    def feels_loss_scale(self) -> bool:  # type: ignore[override]
        return self.rule.feels_loss_scale

    @property
    def every(self) -> int:  # type: ignore[override]
        return getattr(self.rule, "every", 0)

    @property
    def probe_every(self) -> int:  # type: ignore[override]
        return getattr(self.rule, "probe_every", 0)

    @property
    def probe(self) -> Probe:  # type: ignore[override]
        return self.rule.probe

    @property
    def awaits_error(self) -> bool:  # type: ignore[override]
        return getattr(self.rule, "awaits_error", False)

    @property
    def rows(self) -> int:  # type: ignore[override]
        return getattr(self.rule, "rows", 0)

    def probes(self, number: int) -> bool:
        return self.rule.learns and self.rule.probes(number)

    def check_width(self, outputs: int) -> None:
        self.rule.check_width(outputs)

    def begins(self, width: int, generator: Generator) -> dict[str, Tensor]:
        return self.rule.begins(width, generator) if self.rule.learns else {}

    def at_point(self, here: Any) -> tuple[Tensor, dict[str, Tensor]]:
        return self.rule.at_point(here)

    def encode(self, error: Tensor, target: Tensor | None) -> Tensor:
        return self.rule.encode(error, target)

    def moments(self, seen: Seen) -> dict[str, Tensor]:
        return self.rule.moments(seen)

    def probe_moments(self, probed: Probed) -> dict[str, Tensor]:
        return self.rule.probe_moments(probed)

    def update(self, feedback: Tensor, moments: dict[str, Tensor], memory: dict[str, Tensor]) -> None:
        self.rule.update(feedback, moments, memory)
