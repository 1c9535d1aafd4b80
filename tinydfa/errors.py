"""What the library says when it is used in a way that would train something else than was asked for.

Every message names the culprit, the likely cause and the way out. All of them are `DFAError`, so a script
needs one ``except``; the subclasses exist for callers that want to tell them apart.
"""


class DFAError(Exception):
    """A mistake in how a method, a feedback point or an error signal is used."""


class UnknownMethodError(DFAError, ValueError):
    """The name of a training method, distribution or scaling that does not exist."""


class OptionError(DFAError, ValueError):
    """An option of a rule that makes no sense."""


class PointError(DFAError):
    """Feedback points that cannot be found, reached or fed."""


class UnregisteredPointError(PointError):
    """A feedback point of the model that no head feeds."""


class ShapeError(DFAError):
    """Widths or numbers of samples that do not fit together."""


class MissingTargetError(DFAError):
    """The rule reads the targets (``drtp``, ``les``), and none was given for this forward pass."""


class ErrorSignalError(DFAError):
    """The gradient at the output cannot be projected: not finite, or carrying a loss scale."""


class ReplayError(DFAError):
    """A forward pass that cannot be run once more, or was not the same the second time."""
