"""Points in a model that is spread over processes: `fully_shard`, `FullyShardedDataParallel`, tensor parallelism.

Fully sharded data parallelism gathers a module's weights again when the gradient of its output arrives. A point hands
on a detached output, at which no gradient arrives, so the weights are gathered where the signal comes in: at the value
that came into the point, for every sharded module around it.

Under tensor parallelism a process holds some of a layer's columns. It then reads those columns of the feedback: the
scale, and the place of every column, are those of the whole layer. A sequence-parallel process holds some rows.

Nothing here runs in a model whose modules are whole; what is found out about a pass holds for all passes like it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tinydfa.errors import DFAError, PointError
from tinydfa.passes.forward_pass import Record, Rows
from tinydfa.signals import Slot

Gather = Callable[[Tensor], Any]


class Part(NamedTuple):
    """Which part of a layer's output stands in this process."""

    shape: torch.Size  # of the whole output
    local: torch.Size
    offset: tuple[int, ...]  # of the part, in each dimension


class Way(NamedTuple):
    """What is done to the value that came into a point before the head's node gets it."""

    part: Part | None
    gathers: tuple[Gather, ...]

    def take(self, value: Tensor) -> Tensor:
        """`value` as a plain tensor of this process; the modules around it gather their weights before its gradient."""
        for gather in self.gathers:
            gather(value)
        return local(value)


def ways_in(model: nn.Module | None, records: Sequence[Record]) -> list[Way] | None:
    """A way for every record; None where none of them needs one.

    Args:
        model: The attached model; None where it is not known (a head without `attach`).
        records: The points of a pass.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return None
    gathers = gathers_of(model) if model is not None else {}
    ways = [Way(part_of(record), tuple(gathers.get(id(record.point), ()))) for record in records]
    return ways if any(way.part is not None or way.gathers for way in ways) else None


def gathers_of(model: nn.Module) -> dict[int, list[Gather]]:
    """For every point in a sharded module, by `id`: what gathers the weights of the modules around it."""
    found: dict[int, list[Gather]] = {}
    for module in model.modules():
        gather = gather_of(module)
        if gather is not None:
            for point in points_in(module):
                found.setdefault(id(point), []).append(gather)
    return found


def gather_of(module: nn.Module) -> Gather | None:
    """What has a sharded module gather its weights before the gradient of a tensor is handed on."""
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel

    if isinstance(module, FSDPModule):
        before = module._get_fsdp_state()._pre_backward
        return lambda value: value.register_hook(before)
    if isinstance(module, FullyShardedDataParallel):
        from torch.distributed.fsdp import _runtime_utils as fsdp

        return lambda value: fsdp._register_pre_backward_hooks(module, module, value, module._handle)
    return None


def gathered(model: nn.Module) -> dict[int, nn.Parameter]:
    """By the `id` of the gathered weights that a graph holds, the parameters of sharded modules that they belong to."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return {}
    from torch.distributed.fsdp import FSDPModule

    states = [module._get_fsdp_state() for module in model.modules() if isinstance(module, FSDPModule)]
    held = [held for state in states for group in state._fsdp_param_groups for held in group.fsdp_params]
    return {id(each._unsharded_param): each.sharded_param for each in held if hasattr(each, "_unsharded_param")}


def is_sharded(model: nn.Module) -> bool:
    """Whether `fully_shard` was called on a model or a part of it.

    Raises:
        DFAError: Another way of sharding holds its parameters flattened, so that none of them can be looked at.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return False
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel

    if any(isinstance(module, FullyShardedDataParallel) for module in model.modules()):
        raise DFAError(
            "FullyShardedDataParallel holds the parameters flattened, so that none of them can be looked at. Examine "
            "the model before it is wrapped, or shard it by torch.distributed.fsdp.fully_shard."
        )
    return any(isinstance(module, FSDPModule) for module in model.modules())


def points_in(module: nn.Module) -> list[Any]:
    """The points of a module: layers of its own, and those that stand at its submodules."""
    hooks = [hook for inner in module.modules() for hook in inner._forward_hooks.values()]
    hooked = [hook.point for hook in hooks if hasattr(hook, "point")]
    return hooked + [inner for inner in module.modules() if hasattr(inner, "link") and hasattr(inner, "passthrough")]


def local(value: Tensor) -> Tensor:
    """The part of a distributed tensor that stands here; of any other tensor, itself."""
    if not is_distributed(value):
        return value
    return value.to_local(grad_placements=value.placements)  # type: ignore[attr-defined]


def is_distributed(value: Tensor) -> bool:
    tensors = sys.modules.get("torch.distributed.tensor")
    return tensors is not None and isinstance(value, tensors.DTensor)


def part_of(record: Record) -> Part | None:
    """Which part of the whole output came into a point; None where all of it did.

    Raises:
        PointError: Parts that cannot be told apart by columns or rows.
    """
    if record.value is None or "torch.distributed.tensor" not in sys.modules:
        return None
    name = record.point.label
    spec = spec_of(record.value, name)
    if spec is None or all(placement.is_replicate() for placement in spec.placements):
        return None
    if any(not (placement.is_replicate() or placement.is_shard()) for placement in spec.placements):
        raise PointError(
            f"feedback point {name!r} holds a partial sum ({spec.placements}) of tensor parallelism, whose signal is "
            f"not that of the whole. {REPLICATE}"
        )
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    shape, offset = compute_local_shape_and_global_offset(spec.shape, spec.mesh, spec.placements)
    here = local(record.value).shape
    if tuple(shape) != tuple(here):
        raise PointError(
            f"feedback point {name!r} has shape {tuple(here)} in this process, made of a part of shape {tuple(shape)} "
            f"of a layer of shape {tuple(spec.shape)} ({spec.placements}): its columns cannot be told. {REPLICATE}"
        )
    return Part(torch.Size(spec.shape), here, tuple(offset))


REPLICATE = (
    "Place the point where the layer's output is whole: at a row-parallel layer or the block's output, or give the "
    "column-parallel layer output_layouts=Replicate()."
)


def spec_of(value: Tensor, name: str) -> Any:
    """How a tensor is spread: a distributed one says so; a plain one may come out of one, by operations in between."""
    if is_distributed(value):
        return value._spec  # type: ignore[attr-defined]
    specs = {str(spec): spec for spec in specs_behind(value) if not all(p.is_replicate() for p in spec.placements)}
    if len(specs) > 1:
        raise PointError(
            f"feedback point {name!r} is computed from parts of several kinds ({', '.join(specs)}) of tensor "
            f"parallelism, so its columns cannot be told. {REPLICATE}"
        )
    return next(iter(specs.values()), None)


def specs_behind(value: Tensor) -> list[Any]:
    """How the distributed tensors are spread that a plain one was computed from, the nearest ones."""
    found, seen = [], set()
    waiting = [value.grad_fn]
    while waiting:
        node: Any = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name() == "_ToTorchTensorBackward":
            found.append(node.dtensor_spec)
        else:
            waiting += [above for above, _ in node.next_functions]
    return found


def whole(records: Sequence[Record], ways: Sequence[Way]) -> list[Record]:
    """Records as they would be in one process.

    Raises:
        PointError: A layer that is not trained does not say which part of it is here, and its width counts.
    """
    fed = [record for record in records if record.value is not None]
    parts = {id(record): way.part for record, way in zip(fed, ways, strict=True)}
    still = [r.point.label for r in records if r.value is None]
    if still and any(part is not None for part in parts.values()):
        raise PointError(
            f"feedback points {', '.join(map(repr, still))} lie above frozen layers, which under tensor parallelism do "
            "not tell how wide they are in all processes together. Leave them out of points=[...]."
        )
    return [_whole(record, parts.get(id(record))) for record in records]


def _whole(record: Record, part: Part | None) -> Record:
    return record if part is None else record._replace(shape=part.shape)


def told(fed: Sequence[Record], ways: Sequence[Way], dims: Sequence[Sequence[int]], samples: int) -> list[Record]:
    """Records of points that have some of the rows in this process, with the samples that these belong to."""
    return [
        record if way.part is None else record._replace(rows=rows_here(record, way.part, own, samples))
        for record, way, own in zip(fed, ways, dims, strict=True)
    ]


def slots_here(slots: Sequence[Slot], ways: Sequence[Way], dims: Sequence[Sequence[int]]) -> list[Slot]:
    """Slots with the columns that stand in this process."""
    here = [slot_here(slot, way.part, own) for slot, way, own in zip(slots, ways, dims, strict=True)]
    keys = [(slot.start, slot.width, slot.factor, slot.dtype, slot.device) for slot in here]
    return [slot._replace(twin=keys.index(key)) for slot, key in zip(here, keys, strict=True)]


def rows_here(record: Record, part: Part, dims: Sequence[int], samples: int) -> Rows | None:
    """Which samples the rows belong to that this process has of a point; None where it has all rows.

    Args:
        record: The point.
        part: What of it is here.
        dims: Its batch dimensions.
        samples: B.
    """
    if all(part.local[dim] == part.shape[dim] for dim in dims):
        return record.rows
    sizes = [part.shape[dim] for dim in dims]
    if record.rows is not None or math.prod(sizes) != samples:
        raise PointError(
            f"this process has some of the {math.prod(sizes)} rows of feedback point {record.point.label!r} (sequence "
            f"parallelism), and the output has {samples}, so their samples cannot be told. {REPLICATE}"
        )
    numbers = torch.arange(samples, device=record.value.device).view(sizes)  # type: ignore[union-attr]
    for place, dim in enumerate(dims):
        numbers = numbers.narrow(place, part.offset[dim], part.local[dim])
    return Rows(numbers.flatten())


def slot_here(slot: Slot, part: Part | None, dims: Sequence[int]) -> Slot:
    """`slot` with the columns that this process has of a point.

    Raises:
        PointError: they do not stand side by side.
    """
    if part is None:
        return slot
    features = [dim for dim in range(len(part.shape)) if dim not in dims]
    split = [dim for dim in features if part.local[dim] != part.shape[dim]]
    if not split:
        return slot
    if len(split) > 1 or any(part.shape[dim] > 1 for dim in features if dim < split[0]):
        raise PointError(
            f"feedback point {slot.name!r} is split in dimensions {tuple(split)} of its features {tuple(features)}, so "
            f"this process has columns that do not stand side by side. {REPLICATE}"
        )
    inner = math.prod([part.shape[dim] for dim in features if dim > split[0]])
    width = part.local[split[0]] * inner
    return slot._replace(start=slot.start + part.offset[split[0]] * inner, width=width)
