"""Train any PyTorch model by direct feedback alignment and its relatives."""

from tinydfa.alignment import Alignment, measure_alignment
from tinydfa.attach import attach
from tinydfa.attachment import Attachment
from tinydfa.dfa import DFA, DFALayer, FeedbackPointsHandling
from tinydfa.diagnosis import Diagnosis, Fault, Finding, Status
from tinydfa.doctor import doctor
from tinydfa.errors import DFAError
from tinydfa.feedback import Distribution, Feedback, Scaling
from tinydfa.hooks import attachment_of
from tinydfa.methods import Method

__version__ = "0.1.0"

__all__ = [
    "DFA",
    "Alignment",
    "Attachment",
    "DFAError",
    "DFALayer",
    "Diagnosis",
    "Distribution",
    "Fault",
    "Feedback",
    "FeedbackPointsHandling",
    "Finding",
    "Method",
    "Scaling",
    "Status",
    "attach",
    "attachment_of",
    "doctor",
    "measure_alignment",
]
