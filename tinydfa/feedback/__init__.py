"""What projects the error: a matrix that is drawn, a device, a matrix that learns; whether it fits in memory."""

from tinydfa.feedback.drawn import Distribution, Feedback, Scaling
from tinydfa.feedback.projectors import Matrix, NeverStored, OpticalUnit, Projector

__all__ = ["Distribution", "Feedback", "Matrix", "NeverStored", "OpticalUnit", "Projector", "Scaling"]
