"""Train any PyTorch model by direct feedback alignment and its relatives."""

from tinydfa.alignment import Alignment, measure_alignment
from tinydfa.attach import Attachment, attach
from tinydfa.dfa import DFA, DFALayer, FeedbackPointsHandling
from tinydfa.errors import DFAError
from tinydfa.feedback import Distribution, Feedback, Scaling
from tinydfa.hooks import attachment_of
from tinydfa.methods import Method

__all__ = [
    "DFA",
    "Alignment",
    "Attachment",
    "DFAError",
    "DFALayer",
    "Distribution",
    "Feedback",
    "FeedbackPointsHandling",
    "Method",
    "Scaling",
    "attach",
    "attachment_of",
    "measure_alignment",
]
