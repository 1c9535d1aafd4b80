"""The works-with matrix: every method under every condition a training script may put it in.

`test_works_with.py` runs all of it; `matrix_markdown()` is the table of the README, made from the same lists, so that
the README cannot promise a cell that no test runs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.tinydfa.nets import Mlp, batch, gradients_of
from tinydfa import Attachment, Feedback, Method, attach

METHODS = [str(method) for method in Method]
CONDITIONS = {
    "eager": "plain PyTorch",
    "compiled": "`torch.compile(fullgraph=True)`",
    "bf16": "bfloat16 autocast",
    "DDP": "`DistributedDataParallel`, two processes",
    "accumulation": "several backward passes a step",
    "checkpointing": "`torch.utils.checkpoint(use_reentrant=False)`, blocks and the whole model",
    "resume": "model, attachment and optimizer saved, loaded into a model that has not run",
}
RANKS = "the mean of the ranks' gradients, not the whole batch's: the hidden signal is not linear in the error"
PARTS = "the parts' hidden gradients add up, whatever the loss is divided by: their signal does not carry its scale"
NEEDS_UNUSED = "needs `find_unused_parameters=True`: the hidden layers get no gradient"
NEEDS_TARGET = "`attachment.target` is set before the forward pass"
NOTES: dict[tuple[str, str], str] = {
    ("shallow", "DDP"): NEEDS_UNUSED,
    ("drtp", "compiled"): NEEDS_TARGET,
    **{(method, "DDP"): RANKS for method in ("sdfa", "tdfa", "drtp")},
    **{(method, "accumulation"): PARTS for method in ("sdfa", "tdfa", "drtp")},
}
LINEAR = ["bp", "shallow", "dfa", "fa", "usf", "frsf"]  # a mean over the batch is the mean over its parts
SEED = 3


def matrix_markdown() -> str:
    """The table, its notes and what the columns mean, in markdown."""
    notes: list[str] = []
    rows = []
    for method in METHODS:
        cells = []
        for condition in CONDITIONS:
            note = NOTES.get((method, condition))
            if note is not None and note not in notes:
                notes.append(note)
            cells.append("✓" if note is None else f"✓ ({notes.index(note) + 1})")
        rows.append(f"| `{method}` | " + " | ".join(cells) + " |")
    head = ["| method | " + " | ".join(CONDITIONS) + " |", "|---" * (len(CONDITIONS) + 1) + "|"]
    meaning = [f"- {name}: {text}." for name, text in CONDITIONS.items()]
    numbered = [f"{number}. {note}." for number, note in enumerate(notes, start=1)]
    return "\n".join([*head, *rows, "", *meaning, "", *numbered])


def table_in(readme: str) -> str:
    """What stands between the markers of the README."""
    return readme.partition("<!-- works-with -->")[2].partition("<!-- /works-with -->")[0].strip()


def attached(method: str, net: nn.Module | None = None, seed: int = SEED) -> tuple[nn.Module, Attachment]:
    net = Mlp() if net is None else net
    return net, attach(net, method, feedback=Feedback(seed=seed))


def step(
    model: nn.Module,
    attachment: Attachment,
    x: Tensor,
    y: Tensor,
    forward: Callable[[Tensor], Tensor] | None = None,
    factor: float = 1.0,
) -> None:
    """Forward and backward of the mean cross-entropy times `factor`; gradients add up."""
    attachment.target = y
    output = model(x) if forward is None else forward(x)
    (cross_entropy(output.float(), y) * factor).backward()


def reference(method: str, *parts: slice, passes_before: int = 0) -> dict[str, Tensor]:
    """Eager gradients of a fresh network on parts of the batch, added up."""
    net, attachment = attached(method)
    x, y = batch()
    for _ in range(passes_before):
        net(x)
    for part in parts or (slice(None),):
        step(net, attachment, x[part], y[part])
    return gradients_of(net)


def ddp_worker(rank: int, folder: str) -> None:
    """One of two ranks: a step of every method on its half of the batch, gradients and feedback left in `folder`."""
    store = f"file://{folder}/store"
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    results = {}
    for method in METHODS:
        torch.manual_seed(rank)  # the feedback must not hang on the global generator
        net, attachment = attached(method)
        ddp = nn.parallel.DistributedDataParallel(net, find_unused_parameters=method == "shallow")
        x, y = batch()
        mine = slice(4 * rank, 4 * rank + 4)
        step(ddp, attachment, x[mine], y[mine])
        first = gradients_of(net)
        net.zero_grad()
        step(ddp, attachment, x[mine], y[mine])
        state = attachment.state_dict()
        results[method] = {"first": first, "second": gradients_of(net), "state": state}
    torch.save(results, Path(folder) / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()
