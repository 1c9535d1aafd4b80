"""`tinydfa.alignment` of the 2020 package, see `tinydfa.release2020`, with what measures alignment today."""

from tinydfa.examining.alignment import Alignment, measure_alignment
from tinydfa.release2020.alignment import AlignmentMeasurement

__all__ = ["Alignment", "AlignmentMeasurement", "measure_alignment"]
