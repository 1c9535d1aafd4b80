"""One of two processes that train without stored graphs: its gradients are left in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from tests.tinydfa.blocks import MICRO, PreNorm, Stack, Tied
from tests.tinydfa.nets import gradients_of
from tinydfa import DFAError, attach

CASES: dict[str, tuple[type[nn.Module], list[str], str, dict[str, Any]]] = {
    "perceptron": (Stack, ["blocks.*"], "dfa", {}),
    "transformer": (PreNorm, MICRO, "dfa", {}),
    "tied weights": (Tied, ["blocks.*"], "dfa", {}),
    "static graph": (Stack, ["blocks.*"], "dfa", {"static_graph": True}),
    "gradients as views": (Stack, ["blocks.*"], "dfa", {"gradient_as_bucket_view": True}),
    "learned feedback": (Stack, ["blocks.*"], "dkp", {}),
    "drtp": (Stack, ["blocks.*"], "drtp", {}),
}
MEMORY = {"drtp": "forward"}
SHARDED = {"perceptron": (Stack, ["blocks.*"]), "transformer": (PreNorm, MICRO)}


def data(model: nn.Module, rank: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(10 + rank)
    shape = (4, 5, 16) if isinstance(model, PreNorm) else (4, 16)
    x = torch.randn(shape, generator=generator)
    return x, torch.randint(0, 16, shape[:-1], generator=generator)


def steps(model: nn.Module, attachment: Any, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Gradients of the last of four passes, of which two are accumulated without an exchange."""
    torch.manual_seed(4)
    for number in range(3):
        model.zero_grad()
        attachment.target = y
        if number == 2:
            with model.no_sync():
                cross_entropy(model(x).flatten(0, -2), y.flatten()).backward()
        attachment.target = y
        cross_entropy(model(x).flatten(0, -2), y.flatten()).backward()
    return gradients_of(model)


def work(rank: int, folder: Path) -> None:
    results: dict[str, Any] = {}
    for name, (make, points, method, options) in CASES.items():
        for memory in (None, MEMORY.get(name, "replay")):
            model = make()
            attachment = attach(model, method, points=points, memory=memory)
            ddp = DistributedDataParallel(model, **options)
            results[name, memory is None] = steps(ddp, attachment, *data(model, rank))
    results["refused"] = refused(rank)
    for name, (make, points) in SHARDED.items():
        for memory in (None, "replay"):
            results["sharded", name, memory is None] = sharded(rank, make, points, memory)
    torch.save(results, folder / f"rank{rank}.pt")


def sharded(rank: int, make: type[nn.Module], points: list[str], memory: str | None) -> dict[str, Tensor]:
    """Gradients of the second of two passes under FSDP2, every block a group by itself."""
    model, mesh = make(), init_device_mesh("cpu", (2,))
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    attach(model, "dfa", points=points, memory=memory)
    x, y = data(model, rank)
    torch.manual_seed(4)
    for _ in range(2):
        model.zero_grad()
        cross_entropy(model(x).flatten(0, -2), y.flatten()).backward()
    return {name: parameter.grad.full_tensor() for name, parameter in model.named_parameters()}


def refused(rank: int) -> str:
    model = Stack()
    attach(model, "dfa", points=["blocks.*"], memory="replay")
    try:
        DistributedDataParallel(model, find_unused_parameters=True)(data(model, rank)[0])
    except DFAError as error:
        return str(error)
    return ""
