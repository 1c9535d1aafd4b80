"""Peak memory of one step, from the allocator's own record."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import torch
from torch._C._profiler import _ExtraFields_Allocation, _ProfilerEvent
from torch.profiler import ProfilerActivity, profile

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler reports each start and stop of itself


def peak_bytes(step: Callable[[], object], device: str = "cpu") -> int:
    """Most that one call of `step` holds of what it allocates on `device`; gradients that it replaces count as well."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step()
    return peak_of(recorded, device)


def peak_of(recorded: profile, device: str = "cpu") -> int:
    """The same of what a profiler with `profile_memory` has recorded."""
    kind = torch.device(device).type
    assert recorded.profiler is not None
    assert recorded.profiler.kineto_results is not None
    events = recorded.profiler.kineto_results.experimental_event_tree()
    sizes: dict[int, int] = {}
    held = peak = 0
    for _, block in sorted(allocations(events), key=lambda allocation: allocation[0]):
        if block.device.type != kind:
            continue
        if block.alloc_size > 0:
            sizes[block.ptr] = block.alloc_size
            held += block.alloc_size
            peak = max(peak, held)
        else:  # a block from before is not ours, and may be recorded with the size of another that had its address
            held -= sizes.pop(block.ptr, 0)
    return peak


def allocations(events: list[_ProfilerEvent]) -> Iterator[tuple[int, _ExtraFields_Allocation]]:
    """Blocks that were taken (size above 0) and given back (below), with the time in ns, in no order."""
    for event in events:
        if isinstance(event.extra_fields, _ExtraFields_Allocation):
            yield event.start_time_ns, event.extra_fields
        yield from allocations(event.children)
