"""The works-with matrix: every method under every condition a training script may put it in.

`test_works_with.py` runs all of it; `matrix_markdown()` is the table of the README, made from the same lists, so that
the README cannot promise a cell that no test runs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.draws import feedback_generator
from tests.tinydfa.nets import Mlp, batch, error_of, gradients_of, mlp_rule, one_hot
from tinydfa import DFA, Attachment, Feedback, Method, attach
from tinydfa.rules import DKP, EBD, LES

LATE = "fitted_forward"  # changes F at the end of the backward pass, the other estimates before it
NOISY = ["fdfa", "grape", LATE]
ESTIMATED = [*NOISY, "las"]  # by passes without a graph
LOOKING = ["fitted", *ESTIMATED, "calibrated"]
LEARNING = {"dkp": DKP, "ebd": EBD, "les": LES}
UNSCALED = ("sdfa", "tdfa", "drtp", "les")  # a factor on the loss does not reach the hidden layers
METHODS = [*[str(method) for method in Method], "kp", *LEARNING, *LOOKING]
CONDITIONS = {
    "eager": "plain PyTorch",
    "compiled": "`torch.compile(fullgraph=True)`",
    "bf16": "bfloat16 autocast",
    "DDP": "`DistributedDataParallel`, two processes",
    "accumulation": "several backward passes a step",
    "checkpointing": "`torch.utils.checkpoint(use_reentrant=False)`, blocks and the whole model",
    "resume": "model, attachment and optimizer saved, loaded into a model that has not run",
    "accelerate": "`Accelerator.prepare` and `Accelerator.backward`",
    "FSDP2": "`fully_shard` after `attach`",
    "torch.func": "`grad` over `functional_call`",
    "replay": '`attach(..., memory="replay")`',
    "export": "`torch.export.export`, for evaluation",
}
RANKS = "the mean of the ranks' gradients, not the whole batch's: the hidden signal is not linear in the error"
PARTS = "the parts' hidden gradients add up, whatever the loss is divided by: their signal does not carry its scale"
NEEDS_UNUSED = "needs `find_unused_parameters=True`: the hidden layers get no gradient"
AFTER_A_PASS = "once the model has run, `with torch.no_grad(): model(x)`"
AS_MANY_PARTS = "as the whole batch with `every=parts`; else the feedback moves after every part"
REFUSED = "refused: one graph cannot hold two kinds of pass. Compile the submodules between the points"
WALKS_BACK = "refused: it walks back through the graphs that would be freed"
CHANGES = "refused: it changes in every pass, which a pure function must not"
REFUSALS = (REFUSED, WALKS_BACK, CHANGES)
NOISE = "each process draws noise of its own, and the estimates are averaged"
PARTS_LEARN = "the parts' hidden gradients add up, whatever the loss is divided by; `every=parts` is told how many"
LOCAL = "once the model has run; `attachment.target` is set before the forward pass"
EVERY_PART = "each part counts as a pass: looks may fall between two parts"
NEEDS_TARGET = "`attachment.target` is set before the forward pass"
NOTES: dict[tuple[str, str], str] = {
    ("shallow", "DDP"): NEEDS_UNUSED,
    ("drtp", "compiled"): NEEDS_TARGET,
    **{(method, "DDP"): RANKS for method in ("sdfa", "tdfa", "drtp")},
    **{(method, "accumulation"): PARTS for method in ("sdfa", "tdfa", "drtp")},
    **{(method, "accumulation"): AS_MANY_PARTS for method in LEARNING},
    **{(method, "compiled"): AFTER_A_PASS for method in LEARNING},
    ("les", "accumulation"): PARTS_LEARN,
    ("les", "compiled"): LOCAL,
    **{(method, "compiled"): REFUSED for method in LOOKING},
    **{(method, "accumulation"): EVERY_PART for method in LOOKING},
    **{(method, "DDP"): NOISE for method in NOISY},
    **{(method, "replay"): WALKS_BACK for method in ("bp", "fa", "usf", "brsf", "frsf", "kp", "fitted", "calibrated")},
    **{(method, "torch.func"): CHANGES for method in ("brsf", "kp", *LEARNING, *LOOKING)},
}
LINEAR = ["bp", "shallow", "dfa", "fa", "usf", "frsf", *LEARNING]  # a mean over the batch is the mean over its parts
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
            mark = "–" if note in REFUSALS else "✓"
            cells.append(mark if note is None else f"{mark} ({notes.index(note) + 1})")
        rows.append(f"| `{method}` | " + " | ".join(cells) + " |")
    head = ["| method | " + " | ".join(CONDITIONS) + " |", "|---" * (len(CONDITIONS) + 1) + "|"]
    meaning = [f"- {name}: {text}." for name, text in CONDITIONS.items()]
    numbered = [f"{number}. {note}." for number, note in enumerate(notes, start=1)]
    return "\n".join([*head, *rows, "", *meaning, "", *numbered])


def table_in(readme: str) -> str:
    """What stands between the markers of the README."""
    return readme.partition("<!-- works-with -->")[2].partition("<!-- /works-with -->")[0].strip()


def attached(
    method: str, net: nn.Module | None = None, seed: int = SEED, parts: int = 1
) -> tuple[nn.Module, Attachment]:
    """A network at work; `parts` is what a rule that learns is told of how batches come."""
    net = Mlp() if net is None else net
    rule = LEARNING[method](every=parts) if method in LEARNING else method
    return net, attach(net, rule, feedback=Feedback(seed=seed))


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


def step_by_feedback(method: str, attachment: Attachment, run: Callable[[], None]) -> Tensor | None:
    """A step, and the feedback by which its signals were made."""
    before = attachment.effective_feedback()
    run()
    if method != LATE:
        return attachment.effective_feedback()
    drawn = (torch.rand(3, 16, generator=feedback_generator(SEED)) * 2 - 1) / 7**0.5
    return drawn if before is None else before


def reference(method: str, *parts: slice, steps_before: int = 0, told: int = 1) -> dict[str, Tensor]:
    """Eager gradients of a fresh network on parts of the batch, added up; `told` is how many parts a rule hears of."""
    net, attachment = attached(method, parts=told)
    x, y = batch()
    for _ in range(steps_before):
        step(net, attachment, x, y)
    net.zero_grad()
    for part in parts or (slice(None),):
        step(net, attachment, x[part], y[part])
    return gradients_of(net)


def by_hand(
    method: str, net: Mlp, x: Tensor, y: Tensor, number: int, feedback: Tensor | None = None
) -> dict[str, Tensor]:
    """Gradients of step `number` (from 0) of a network with `attached`'s feedback.

    Rules that estimate F by noise are given it, `feedback`; what it ought to be, `test_estimated` says.
    """
    if method == "les":
        return by_local_errors(net, x, y, number)
    if method in LEARNING:
        return by_learned_feedback(method, net, x, y, number)
    if method in ("fitted", "calibrated") and number == 0:
        return by_hand("bp", net, x, y, number)
    if method == "fitted":
        return by_feedback(net, x, y, fitted_in_the_first_step(x, y))[0]
    if method in ESTIMATED:
        assert feedback is not None
        return by_feedback(net, x, y, list(feedback.split([5, 4, 7], dim=1)))[0]
    method = "dfa" if method == "calibrated" else method
    if method in ("dfa", "sdfa", "tdfa", "drtp", "shallow"):
        signal = {
            "dfa": lambda e: e, "shallow": lambda e: e, "sdfa": torch.sign, "drtp": lambda e: one_hot(y),
            "tdfa": lambda e: e.sign() * (e.abs() > e.abs().mean()),
        }[method]  # fmt: skip
        drawn = torch.rand(3, 7, generator=feedback_generator(SEED)) * 2 - 1
        rule = mlp_rule(net, x, y, drawn, signal)
        return {name: g for name, g in rule.items() if method != "shallow" or name.startswith("top")}
    return walk_down(net, x, y, matrices(method, net, x, number))


def by_learned_feedback(method: str, net: Mlp, x: Tensor, y: Tensor, number: int) -> dict[str, Tensor]:
    """Gradients of step `number` from a fresh network; every step before it moves F, by dkp as -lr (e.T @ h + decay F).

    Steps before this one are taken from the weights of `Mlp()` on, as `eager` takes them: by SGD at 0.1.
    """
    drawn = (torch.rand(3, 16, generator=feedback_generator(SEED)) * 2 - 1) / 7**0.5
    feedback, at = list(drawn.split([5, 4, 7], dim=1)), Mlp()
    for _ in range(number):
        gradients, moments = by_feedback(at, x, y, feedback)
        move = {"dkp": lambda F, m: F - 0.01 * (m + 1e-4 * F), "ebd": lambda F, m: 0.999999 * F + 1e-6 * m}[method]
        feedback = [move(F, moment) for F, moment in zip(feedback, moments, strict=True)]
        with torch.no_grad():
            for name, parameter in at.named_parameters():
                parameter.sub_(0.1 * gradients[name])
    return by_feedback(net, x, y, feedback)[0]


def by_local_errors(net: Mlp, x: Tensor, y: Tensor, number: int) -> dict[str, Tensor]:
    """Gradients of step `number`, every layer trained alone under a reader of its own; steps before as above."""
    drawn = (torch.rand(3, 16, generator=feedback_generator(SEED)) * 2 - 1) / 7**0.5
    readers, at = [F.clone().requires_grad_() for F in drawn.split([5, 4, 7], dim=1)], Mlp()
    adam = torch.optim.Adam(readers, lr=1e-3)
    for step in range(number + 1):
        model, h, loss = net if step == number else at, x, torch.zeros(())
        for layer, reader in zip(model.hidden, readers, strict=True):
            h = torch.tanh(layer(h.detach()))
            loss = loss + cross_entropy(h @ reader.T, y)
        loss = loss + cross_entropy(model.top(h.detach()), y)
        parameters = dict(model.named_parameters())
        *found, low, middle, high = torch.autograd.grad(loss, [*parameters.values(), *readers])
        if step == number:
            break
        for reader, gradient in zip(readers, (low, middle, high), strict=True):
            reader.grad = gradient
        adam.step()
        with torch.no_grad():
            for parameter, gradient in zip(parameters.values(), found, strict=True):
                parameter.sub_(0.1 * gradient)
    return dict(zip(parameters, found, strict=True))


@torch.no_grad()
def by_feedback(net: Mlp, x: Tensor, y: Tensor, feedback: list[Tensor]) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Gradients of all parameters, and e.T @ h of every point."""
    h = [x]
    for layer in net.hidden:
        h.append(torch.tanh(h[-1] @ layer.weight.T + layer.bias))
    error = error_of(h[-1] @ net.top.weight.T + net.top.bias, y)
    gradients = {"top.weight": error.T @ h[-1], "top.bias": error.sum(0)}
    for number, F in enumerate(feedback):
        delta = error @ F * (1 - h[number + 1] ** 2)
        gradients |= {f"hidden.{number}.weight": delta.T @ h[number], f"hidden.{number}.bias": delta.sum(0)}
    return gradients, [error.T @ value for value in h[1:]]


def fitted_in_the_first_step(x: Tensor, y: Tensor) -> list[Tensor]:
    """F of every point: the ridge solution, in float64, of the errors and gradients at the weights of `Mlp()`."""
    net, h = Mlp().double(), [x.double()]
    for layer in net.hidden:
        h.append(torch.tanh(layer(h[-1])))
    output = net.top(h[-1])
    found = torch.autograd.grad(cross_entropy(output, y), h[1:])
    error = error_of(output, y).detach()
    ridge = 1e-3 * error.square().sum() / 3 * torch.eye(3, dtype=torch.float64)
    return [((error.T @ error + ridge).inverse() @ (error.T @ gradient)).float() for gradient in found]


def matrices(method: str, net: Mlp, x: Tensor, number: int) -> dict[str, Tensor]:
    """What each layer sends its signal through: the weight, or B read off a twin in the same pass."""
    layers = {name: layer for name, layer in net.named_modules() if isinstance(layer, nn.Linear)}
    if method == "bp":
        return {name: layer.weight.detach() for name, layer in layers.items()}
    twin, seen = Mlp(), {}
    twin, _ = attached(method, twin)  # at the first weights, from which kp's B begins
    twin.load_state_dict(net.state_dict())
    for name, layer in twin.named_modules():
        if isinstance(layer, nn.Linear):
            layer.register_forward_hook(lambda m, i, o, name=name: seen.update({name: (i[0], o)}))
    for _ in range(number + 1):
        twin(x.clone().requires_grad_())
    units = {name: torch.eye(layer.out_features) for name, layer in layers.items()}
    return {
        name: torch.stack([torch.autograd.grad(o, i, u.expand_as(o), retain_graph=True)[0][0] for u in units[name]])
        for name, (i, o) in seen.items()
    }


@torch.no_grad()
def walk_down(net: Mlp, x: Tensor, y: Tensor, matrix: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gradients when the signal goes down through ``matrix[layer]`` in place of the layer's weight."""
    h = [x]
    for layer in net.hidden:
        h.append(torch.tanh(h[-1] @ layer.weight.T + layer.bias))
    delta = error_of(h[-1] @ net.top.weight.T + net.top.bias, y)
    expected = {"top.weight": delta.T @ h[-1], "top.bias": delta.sum(0)}
    for number, above in ((2, "top"), (1, "hidden.2"), (0, "hidden.1")):
        delta = delta @ matrix[above] * (1 - h[number + 1] ** 2)
        expected |= {f"hidden.{number}.weight": delta.T @ h[number], f"hidden.{number}.bias": delta.sum(0)}
    return expected


def ddp_worker(rank: int, folder: Path) -> None:
    """One of two ranks: a step of every method on its half of the batch, gradients and feedback left in `folder`."""
    results = {}
    for method in METHODS:
        torch.manual_seed(rank)  # the feedback must not hang on the global generator
        net, attachment = attached(method)
        ddp = nn.parallel.DistributedDataParallel(net, find_unused_parameters=method == "shallow")
        x, y = batch()
        mine = slice(4 * rank, 4 * rank + 4)
        run = partial(step, ddp, attachment, x[mine], y[mine])
        feedback = [step_by_feedback(method, attachment, run)]
        first = gradients_of(net)
        net.zero_grad()
        feedback.append(step_by_feedback(method, attachment, run))
        state = attachment.state_dict()
        results[method] = {
            "first": first,
            "feedback at the first": feedback[0],
            "second": gradients_of(net),
            "feedback at the second": feedback[1],
            "state": state,
        }
    results |= {kind: ddp_variant(kind, rank) for kind in ("own head", "attached after")}
    torch.save(results, folder / f"rank{rank}.pt")


def ddp_variant(kind: str, rank: int) -> dict[str, Tensor]:
    """Gradients by `dfa` when the head is written into the model, or when `attach` comes after the wrapping."""
    torch.manual_seed(rank)
    net = Mlp()
    model = nn.Sequential(net, DFA(list(net.points), feedback=Feedback(seed=SEED))) if kind == "own head" else net
    ddp = nn.parallel.DistributedDataParallel(model)
    if kind == "attached after":
        attached("dfa", net)
    x, y = (data[4 * rank : 4 * rank + 4] for data in batch())
    for _ in range(2):
        net.zero_grad()
        cross_entropy(ddp(x), y).backward()
    return gradients_of(net)
