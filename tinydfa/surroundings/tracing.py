"""Whether a model is being traced into a program: torch.export, torch.jit.trace, torch.fx.symbolic_trace.

Such a program holds what a model computes, and not the rule it trains by.
"""

from __future__ import annotations

import torch
from torch.fx import _symbolic_trace

_is_exporting = getattr(torch.compiler, "is_exporting", lambda: False)  # not in the oldest releases
_is_fx_tracing = getattr(_symbolic_trace, "is_fx_symbolic_tracing", _symbolic_trace.is_fx_tracing)


def is_tracing() -> bool:
    """Whether this pass is being traced; `torch.compile` does not count, whose programs train."""
    if torch.compiler.is_compiling():
        return bool(_is_exporting())
    return torch._C._is_tracing() or bool(_is_fx_tracing())
