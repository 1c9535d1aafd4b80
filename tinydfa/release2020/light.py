"""`tinydfa.light_dfa` of the 2020 package: the same rule with fewer arguments.

The 2020 release had a second implementation here, faster and without batch dimensions. Now there is one; these two
classes take the arguments of that module and mean what it meant: ``passthrough`` leaves a point out altogether, and
the first dimension counts samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tinydfa import points
from tinydfa.passes.forward_pass import Record
from tinydfa.release2020 import head

__all__ = ["DFA", "DFALayer"]


class DFALayer(points.DFALayer):
    """A feedback point; with `passthrough` the layers below it are trained by backpropagation."""

    def __init__(self, name: str | None = None, passthrough: bool = False) -> None:
        super().__init__(name=name, passthrough=passthrough)

    def forward(self, input: Tensor, index: Tensor | None = None) -> Tensor:
        if self.passthrough:
            if self.link is not None:
                self.link.write(Record(self, None, None, input.shape, None, True))
            return input
        return super().forward(input, index)


class DFA(head.DFA):
    """The head of `tinydfa.DFA`, with the arguments of the light version."""

    def __init__(
        self,
        dfa_layers: Sequence[points.DFALayer] | nn.ModuleList,
        normalization: bool = True,
        rp_device: torch.device | str | None = None,
        no_training: bool = False,
    ) -> None:
        super().__init__(dfa_layers, normalization, rp_device, no_training)
