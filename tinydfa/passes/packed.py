"""Points that hold a packed sequence: which sample each of its rows belongs to.

`torch.nn.utils.rnn.PackedSequence` stores the steps of sequences of unequal length one after the other, the first
steps of all sequences first. Its rows are therefore not in the order of the samples, even where they are a whole number
for each.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from tinydfa.passes.forward_pass import Rows


def rows_of(output: Any, keys: tuple[int | str, ...], told: Rows | None) -> Rows | None:
    """The samples of a point's rows, where it is the data of a packed sequence; else what was told.

    Args:
        output: What a module returned.
        keys: Where the point stands in it.
        told: What the user said of the point's rows.
    """
    if not keys:
        return told
    holder = output
    for key in keys[:-1]:
        try:
            holder = holder[key]
        except (KeyError, IndexError, TypeError):
            return told
    if not isinstance(holder, PackedSequence) or keys[-1] not in (0, "data"):
        return told
    if told is not None:
        return told._replace(packed=True)
    return Rows(sample_of_row(holder), samples=int(holder.batch_sizes[0]), packed=True)


def sample_of_row(packed: PackedSequence) -> Tensor:
    """The sample of each row of ``packed.data``, ``[rows]`` int64.

    Example:
        >>> from torch.nn.utils.rnn import pack_sequence
        >>> packed = pack_sequence([torch.zeros(1, 2), torch.zeros(3, 2)], enforce_sorted=False)
        >>> sample_of_row(packed).tolist()
        [1, 0, 1, 1]
    """
    sizes = packed.batch_sizes
    first = sizes.cumsum(0) - sizes
    place = torch.arange(int(sizes.sum())) - first.repeat_interleave(sizes)
    order = packed.sorted_indices
    return place.to(packed.data.device) if order is None else order[place.to(order.device)]
