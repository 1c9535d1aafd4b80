"""Models spread over two processes, and their gradients by plain torch; run by `test_spread.py`."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.distributed.pipelining import PipelineStage, ScheduleInterleaved1F1B
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from torch.nn.functional import cross_entropy

from tests.draws import feedback_generator
from tests.tinydfa.nets import fill
from tinydfa import DFAError, DFALayer, Feedback, attach, doctor, measure_alignment

SEED = 3
WIDTHS = (5, 8, 6)  # of the blocks' outputs: D = 8


class Block(nn.Module):
    """Two layers; what it returns is a feedback point."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.up, self.act, self.down, self.end = nn.Linear(inputs, 10), nn.Tanh(), nn.Linear(10, outputs), nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.down(self.act(self.up(x))))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(i, o) for i, o in zip((4, *WIDTHS), WIDTHS, strict=False))
        self.top = nn.Linear(WIDTHS[-1], 3)
        self.double()
        fill(self, torch.Generator().manual_seed(0))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.top(x)


class WithPoints(Net):
    """The same with a point written into the end of every block."""

    def __init__(self) -> None:
        super().__init__()
        for block in self.blocks:
            block.end = nn.Sequential(nn.Tanh(), DFALayer())


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8, 4, generator=generator).double(), torch.randint(0, 3, (8,), generator=generator)


def drawn(columns: int) -> Tensor:
    return (torch.rand(3, columns, generator=feedback_generator(SEED)) * 2 - 1).double()


def by_hand() -> dict[str, Tensor]:
    """Gradients of the mean cross-entropy of `Net` when ``e @ F[:, :d] / sqrt(8)`` reaches every block."""
    net, (x, y) = Net(), data()
    values = [x]
    for block in net.blocks:
        values.append(block(values[-1].detach()))
    output = net.top(values[-1].detach())
    loss = cross_entropy(output, y)
    (error,) = torch.autograd.grad(loss, output, retain_graph=True)
    loss.backward()
    for value in values[1:]:
        value.backward(error @ drawn(8)[:, : value.shape[1]] / 8**0.5)
    return {name: p.grad for name, p in net.named_parameters()}


def half(rank: int) -> tuple[Tensor, Tensor]:
    x, y = data()
    return x[4 * rank : 4 * rank + 4], y[4 * rank : 4 * rank + 4]


def gradients(model: nn.Module) -> dict[str, Tensor]:
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {name: g.full_tensor() if hasattr(g, "full_tensor") else g.clone() for name, g in found.items()}


def start(net: nn.Module, points: list[str] | None, method: str = "dfa", **more):
    return attach(net, method, points=points, feedback=Feedback(seed=SEED), **more)


def shard(net: Net) -> None:
    for block in net.blocks:
        fully_shard(block)
    fully_shard(net)


def sharded(rank: int, order: str, points: list[str] | None, kind: type[Net] = Net) -> dict[str, Tensor]:
    """Gradients after two steps of which the first is forgotten."""
    net = kind()
    if order == "attach first":
        start(net, points)
    shard(net)
    if order != "attach first":
        start(net, points)
    x, y = half(rank)
    for _ in range(2):
        net.zero_grad()
        cross_entropy(net(x), y).backward()
    return gradients(net)


def sharded_after_a_step(rank: int) -> dict[str, Tensor]:
    net = Net()
    start(net, ["blocks.*.end"])
    x, y = half(rank)
    cross_entropy(net(x), y).backward()
    net.zero_grad()
    shard(net)
    cross_entropy(net(x), y).backward()
    return gradients(net)


def sharded_with_hooks(rank: int) -> dict[str, Tensor]:
    """What a backward hook sees at the blocks, rows of this rank."""
    net, seen = Net(), {}
    start(net, ["blocks.*"])
    shard(net)
    for number, block in enumerate(net.blocks):
        block.register_full_backward_hook(lambda m, i, o, number=number: seen.update({f"{number}": o[0].clone()}))
    x, y = half(rank)
    cross_entropy(net(x), y).backward()
    return seen


def wrapped(rank: int, order: str, original: bool) -> dict[str, Tensor]:
    """Gradients by FullyShardedDataParallel, from a step of SGD: it holds flat parameters, whose gradients it hides."""
    net = Net()
    if order == "attach first":
        start(net, ["blocks.*"])
    model = FullyShardedDataParallel(
        net, auto_wrap_policy=ModuleWrapPolicy({Block}), use_orig_params=original, device_id=torch.device("cpu")
    )
    if order != "attach first":
        start(net, ["blocks.*"])
    x, y = half(rank)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for _ in range(2):
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
    optimizer.step()
    before = dict(Net().named_parameters())
    with FullyShardedDataParallel.summon_full_params(model):
        after = {name.replace("_fsdp_wrapped_module.", ""): p for name, p in model.named_parameters()}
        return {name: (before[name] - p).detach().clone() for name, p in after.items()}


def examined(rank: int) -> dict[str, str]:
    net = Net()
    start(net, ["blocks.*"])
    shard(net)
    report = doctor(net, half(rank), lambda m, b: cross_entropy(m(b[0]), b[1]), compile=False, autocast=False)
    left = [name for name, p in net.named_parameters() if p.grad is not None]
    return {name: str(kind) for name, kind in report.parameters.items()} | {
        "findings": "; ".join(map(str, report.findings)), "left": ", ".join(left)
    }  # fmt: skip


def aligned(rank: int) -> dict[str, float]:
    net = Net()
    start(net, ["blocks.*"])
    shard(net)
    x, y = half(rank)
    found = measure_alignment(net, lambda m: cross_entropy(m(x), y))
    return {name: each.mean for name, each in found.items()}


COLUMNS = {"up": ColwiseParallel(), "down": RowwiseParallel()}


def split(rank: int, order: str, points: list[str], plan: dict, seen_before: bool = False) -> dict[str, Tensor]:
    net, mesh = Net(), init_device_mesh("cpu", (2,))
    if order == "attach first":
        start(net, points)
    for block in net.blocks:
        parallelize_module(block, mesh, plan)
    if order != "attach first":
        start(net, points)
    x, y = data()
    if seen_before:
        with torch.no_grad():
            net(x)
    for _ in range(2):
        net.zero_grad()
        cross_entropy(net(x), y).backward()
    return gradients(net)


def split_by_hand(at: str) -> dict[str, Tensor]:
    """As `by_hand`, with points at every block and in it: at its layer `up` or at its `act`, both of width 10."""
    net, (x, y) = Net(), data()
    fed, value = [], x
    for block in net.blocks:
        for name, layer in block.named_children():
            value = layer(value)
            if name in (at, "end"):
                fed.append(value)
                value = value.detach()
    output = net.top(value)
    loss = cross_entropy(output, y)
    (error,) = torch.autograd.grad(loss, output, retain_graph=True)
    loss.backward()
    for value in fed:
        value.backward(error @ drawn(10)[:, : value.shape[1]] / 10**0.5)
    return {name: p.grad for name, p in net.named_parameters()}


class Tokens(nn.Module):
    """A net over sequences ``[B, T, 4]`` to ``[B, T, 3]`` whose norm runs on a part of the positions."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.norm, self.top = nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 3)
        self.double()
        fill(self, torch.Generator().manual_seed(0))

    def forward(self, x: Tensor) -> Tensor:
        return self.top(self.norm(torch.tanh(self.low(x))))


def sequences() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 6, 4, generator=generator).double(), torch.randint(0, 3, (18,), generator=generator)


def positions(rank: int) -> dict[str, Tensor]:
    net, mesh = Tokens(), init_device_mesh("cpu", (2,))
    whole = PrepareModuleInput(input_layouts=Shard(1), desired_input_layouts=Replicate(), use_local_output=True)
    plan = {"norm": SequenceParallel(use_local_output=True), "top": whole}
    parallelize_module(net, mesh, plan)
    start(net, ["norm"])
    x, y = sequences()
    # The part of the positions that the norm keeps is cut out by hand, and gathered again by `top`'s plan.
    net.low.register_forward_hook(lambda m, i, o: o[:, 3 * rank : 3 * rank + 3])
    output = net(x)
    cross_entropy(output.reshape(-1, 3), y).backward()
    return gradients(net.norm)


def positions_by_hand() -> dict[str, Tensor]:
    net, (x, y) = Tokens(), sequences()
    value = net.norm(torch.tanh(net.low(x)))
    output = net.top(value.detach())
    loss = cross_entropy(output.reshape(-1, 3), y)
    (error,) = torch.autograd.grad(loss, output)
    value.backward(error @ drawn(6) / 6**0.5)
    return {"weight": net.norm.weight.grad, "bias": net.norm.bias.grad}


def refused(work: Callable[[], object]) -> str:
    try:
        work()
    except DFAError as error:
        return str(error)
    return "nothing was refused"


def split_output(rank: int) -> None:
    net, mesh = Net(), init_device_mesh("cpu", (2,))
    parallelize_module(net, mesh, {"top": ColwiseParallel(use_local_output=False)})
    start(net, ["blocks.*"])
    net(data()[0])


def split_frozen(rank: int) -> None:
    net, mesh = Net(), init_device_mesh("cpu", (2,))
    for block in net.blocks:
        parallelize_module(block, mesh, COLUMNS)
    for p in net.blocks[0].parameters():
        p.requires_grad_(False)
    start(net, ["blocks.*.up"])
    net(data()[0])


def split_learning(rank: int) -> None:
    net, mesh = Net(), init_device_mesh("cpu", (2,))
    for block in net.blocks:
        parallelize_module(block, mesh, COLUMNS)
    start(net, ["blocks.*.up"], method="dkp")
    net(data()[0])


def pipeline(methods: tuple[str | None, str | None]) -> dict[str, Tensor]:
    """Gradients of `Net` as a pipeline of two stages in one process, each attached by its method or not at all."""
    net, (x, y) = Net(), data()
    parts = [nn.Sequential(net.blocks[0], net.blocks[1]), nn.Sequential(net.blocks[2], net.top)]
    for part, method in zip(parts, methods, strict=True):
        if method is not None:
            attach(part, method, points=["0"])
    stages = [PipelineStage(part, number, 2, torch.device("cpu")) for number, part in enumerate(parts)]
    ScheduleInterleaved1F1B(stages, 2, loss_fn=cross_entropy).step(x, target=y)
    return gradients(net)


def layerwise(rank: int, method: str, order: str) -> dict[str, Tensor]:
    net = Net()
    if order == "attach first":
        start(net, None, method)
    shard(net)
    if order != "attach first":
        start(net, None, method)
    x, y = half(rank)
    cross_entropy(net(x), y).backward()
    return gradients(net)


def split_layerwise(rank: int, order: str) -> None:
    net, mesh = Net(), init_device_mesh("cpu", (2,))
    if order == "attach first":
        start(net, None, "fa")
    parallelize_module(net.blocks[0], mesh, COLUMNS)
    if order != "attach first":
        start(net, None, "fa")
    net(data()[0])


def pieces(rank: int) -> dict[str, Callable[[], object]]:
    """What every rank computes, by name."""
    found: dict[str, Callable[[], object]] = {}
    for order in ("attach first", "attach last"):
        found[f"fsdp2 {order}, points at blocks"] = functools.partial(sharded, rank, order, ["blocks.*"])
        found[f"fsdp2 {order}, points inside"] = functools.partial(sharded, rank, order, ["blocks.*.end"])
        found[f"fsdp2 {order}, points of its own"] = functools.partial(sharded, rank, order, None, WithPoints)
        for method in ("fa", "brsf"):
            found[f"{method} {order}"] = functools.partial(layerwise, rank, method, order)
        found[f"split fa {order}"] = functools.partial(refused, functools.partial(split_layerwise, rank, order))
        for original in (True, False):
            found[f"fsdp1 {order}, {original}"] = functools.partial(wrapped, rank, order, original)
        for at, plan in PLANS.items():
            points = [f"blocks.*.{at.partition(' ')[0]}", "blocks.*"]
            found[f"tp {order}, {at}"] = functools.partial(split, rank, order, points, plan)
    found["tp evaluated first"] = functools.partial(split, rank, "", ["blocks.*.up", "blocks.*"], COLUMNS, True)
    found["fsdp2 after a step"] = functools.partial(sharded_after_a_step, rank)
    found["fsdp2 with hooks"] = functools.partial(sharded_with_hooks, rank)
    found["doctor"] = functools.partial(examined, rank)
    found["aligned"] = functools.partial(aligned, rank)
    found["sequence parallel"] = functools.partial(positions, rank)
    for work in (split_output, split_frozen, split_learning):
        found[work.__name__] = functools.partial(refused, functools.partial(work, rank))
    return found


PLANS = {
    "up": COLUMNS,
    "act": COLUMNS,
    "up distributed": {
        "up": ColwiseParallel(use_local_output=False),
        "down": RowwiseParallel(input_layouts=Shard(-1)),
    },
    "up whole": {"up": ColwiseParallel(output_layouts=Replicate()), "down": RowwiseParallel(input_layouts=Replicate())},
}


def worker(rank: int, folder: Path) -> None:
    results = {}
    for name, work in pieces(rank).items():
        try:
            results[name] = work()
        except Exception:
            results[name] = traceback.format_exc()
    torch.save(results, folder / f"rank{rank}.pt")
