"""What a pipeline says when it cannot go on."""

from __future__ import annotations

from tinydfa.errors import DFAError


class StageLostError(DFAError):
    """Another stage has ended, or has not answered within the timeout."""
