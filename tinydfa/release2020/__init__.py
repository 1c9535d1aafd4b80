"""The interface of the 2020 package (code release of arXiv 2006.12878), so that its scripts run unchanged.

A layer on top of the library: it takes the arguments of that release and means by them what it meant. The same names
stand where they stood then: `tinydfa.DFA`, `tinydfa.FeedbackPointsHandling`, `tinydfa.light_dfa`,
`tinydfa.alignment.AlignmentMeasurement`.
"""

from tinydfa.release2020.alignment import AlignmentMeasurement
from tinydfa.release2020.head import DFA, FeedbackPointsHandling

__all__ = ["DFA", "AlignmentMeasurement", "FeedbackPointsHandling"]
