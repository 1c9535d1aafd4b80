"""Train any PyTorch model by direct feedback alignment and its relatives."""

from tinydfa.attaching.attach import attach
from tinydfa.attaching.attachment import Attachment, attachment_of
from tinydfa.errors import DFAError
from tinydfa.examining.alignment import Alignment, measure_alignment
from tinydfa.examining.diagnosis import Diagnosis, Fault, Finding, Status
from tinydfa.examining.doctor import doctor
from tinydfa.examining.needs import Needs, memory_needs
from tinydfa.examining.weight_alignment import WeightAlignment, weight_alignment
from tinydfa.feedback.drawn import Distribution, Feedback, Scaling
from tinydfa.feedback.projectors import Matrix, NeverStored, OpticalUnit, Projector
from tinydfa.head import Head
from tinydfa.integrations import watch as _watch
from tinydfa.layerwise.known_layers import register_layer
from tinydfa.names import Method
from tinydfa.points import DFALayer
from tinydfa.release2020 import DFA, FeedbackPointsHandling
from tinydfa.rules import Broadcast, Layerwise, Learning, Rule, find_rule

_watch()  # for the trainers that an attachment's state is saved and resumed by

__version__ = "0.2.0"

__all__ = [
    "DFA",
    "Alignment",
    "Attachment",
    "Broadcast",
    "DFAError",
    "DFALayer",
    "Diagnosis",
    "Distribution",
    "Fault",
    "Feedback",
    "FeedbackPointsHandling",
    "Finding",
    "Head",
    "Layerwise",
    "Learning",
    "Matrix",
    "Method",
    "Needs",
    "NeverStored",
    "OpticalUnit",
    "Projector",
    "Rule",
    "Scaling",
    "Status",
    "WeightAlignment",
    "attach",
    "attachment_of",
    "doctor",
    "find_rule",
    "measure_alignment",
    "memory_needs",
    "register_layer",
    "weight_alignment",
]
