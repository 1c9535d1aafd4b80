"""The training rules: one file a family, found by name, by class, as an object, or in a file of the user's.

To add a rule to the library: write the class in its family's file and list it here.
"""

from __future__ import annotations

from tinydfa.rules.base import Broadcast, Rule
from tinydfa.rules.broadcast import DFA, DRTP, Backprop, Shallow, SignDFA, TernaryDFA
from tinydfa.rules.calibrated import Calibrated
from tinydfa.rules.estimated import FDFA, ForwardFitted, GrAPE
from tinydfa.rules.fitted import Fitted
from tinydfa.rules.imitating import LAS
from tinydfa.rules.layerwise import BRSF, FA, FRSF, KP, USF, Layerwise
from tinydfa.rules.learned import DKP, EBD, Learning, Probe, Probed, Seen
from tinydfa.rules.local import LES, Here, Local
from tinydfa.rules.registry import BY_NAME, find_rule, registered

__all__ = [
    "BRSF",
    "DFA",
    "DKP",
    "DRTP",
    "EBD",
    "FA",
    "FDFA",
    "FRSF",
    "KP",
    "LAS",
    "LES",
    "USF",
    "Backprop",
    "Broadcast",
    "Calibrated",
    "Fitted",
    "ForwardFitted",
    "GrAPE",
    "Here",
    "Layerwise",
    "Learning",
    "Local",
    "Probe",
    "Probed",
    "Rule",
    "Seen",
    "Shallow",
    "SignDFA",
    "TernaryDFA",
    "find_rule",
    "registered",
]

_LIBRARY: tuple[type[Rule], ...] = (
    Backprop, Shallow, DFA, SignDFA, TernaryDFA, DRTP, FA, USF, BRSF, FRSF, KP, DKP, EBD,
    Fitted, FDFA, GrAPE, ForwardFitted, LAS, LES, Calibrated
)  # fmt: skip
BY_NAME.update({kind.name: kind for kind in _LIBRARY})
