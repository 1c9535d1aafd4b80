"""Train any PyTorch model by direct feedback alignment and its relatives."""

from tinydfa.alignment import Alignment, measure_alignment
from tinydfa.attach import attach
from tinydfa.attachment import Attachment, attachment_of
from tinydfa.diagnosis import Diagnosis, Fault, Finding, Status
from tinydfa.doctor import doctor
from tinydfa.errors import DFAError
from tinydfa.feedback import Distribution, Feedback, Scaling
from tinydfa.head import Head
from tinydfa.integrations import watch as _watch
from tinydfa.known_layers import register_layer
from tinydfa.names import Method
from tinydfa.needs import Needs, memory_needs
from tinydfa.points import DFALayer
from tinydfa.projectors import Matrix, NeverStored, OpticalUnit, Projector
from tinydfa.release2020 import DFA, FeedbackPointsHandling
from tinydfa.rules import Broadcast, Layerwise, Learning, Rule, find_rule
from tinydfa.weight_alignment import WeightAlignment, weight_alignment

_watch()  # for the trainers that an attachment's state is saved and resumed by

__version__ = "0.1.0"

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
