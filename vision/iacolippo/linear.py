"""Why feedback alignment works, on the smallest network that shows it: y = W2 W1 x learns y = M x.

    python -m vision.linear --method dfa --seed 0

After iacolippo's `dfa-linear-net.ipynb`: M is 10 x 10 with whole entries in [-10, 10), 1000 Gaussian samples are one
batch, the cost is half the summed squared error, weights start at zero, and B (``[hidden, outputs]``, the transpose of
the library's feedback matrix) is standard normal. Two updates, with errors e = W2 W1 x - y and hidden h = W1 x:

    W1 -= lr * sum B e x^T        W2 -= lr * sum e h^T

From zero, the first step gives ``W1 = lr B C`` with ``C = sum y x^T`` and leaves W2 at zero; the second gives
``W2 = lr^2 C C^T B^T``. ``C C^T`` has no negative eigenvalue, so W2 starts within 90 degrees of ``B^T``, and ``W2^T e``
of ``B e``. It stays there: in the limit of small steps

    W1 W1^T = B W2 + (B W2)^T,    so    <W2, B^T> = |W1|^2 / 2 > 0,

and with steps of finite size the left side is larger by the sum of ``D D^T`` over the steps D that W1 has made. That
is what makes a random matrix useful: the weights above learn to agree with it, and then B e points downhill
(Lillicrap et al. 2016, doi 10.1038/ncomms13276; Nokland 2016, arXiv 1609.01596, whose theorem is about the cosine
reported here). Backpropagation sends ``W2^T e``, which is zero from zero weights: it never starts.

Steps are counted from 0, as in the notebook. Everything is float64, where the device has it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.config import BaseConfig, Unused
from harness.config import Method as MethodOption
from harness.device import pick_device
from harness.errors import UserError
from harness.files import write_whole
from harness.methods import named, rule_of, slug
from harness.options import Flat
from harness.run import NullRun, Run, check_loss
from harness.run.stateful import Record
from harness.seeds import seed_everything
from tinydfa import Attachment, DFALayer, Feedback, Method, attach
from vision.models.layers import WIDEST

SIZE, SAMPLES = 10, 1000  # of x and y; in the batch
TOLERANCE = 1e-3  # the cost at which training ends
EVERY = 10  # steps between measurements, from step 1 on: at step 0 W2 is zero
LAST_PRINTED = 1.366e-3  # the cost at step 451 of the notebook
STUCK = "every gradient is zero, so the weights stay as they are"


# Why accelerate and torchrun are refused.
ALONE = "it takes seconds, and its batch is never divided"


@dataclass(frozen=True, kw_only=True)
class LinearPreset:
    """What decides a number. Its fields are options; the notebook's settings are the defaults."""

    method: MethodOption = Method.DFA
    init_std: float = 0.0
    """Standard deviation of the weights at the start; 0: all zero, from which bp cannot move."""
    hidden: int = 1000
    """Width of the hidden layer."""
    lr: float = 1e-6
    """Learning rate, on gradients summed over the 1000 samples."""
    steps: int = 4000
    """Steps of the optimiser, at most; each is on all samples."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "method", named(self.method))
        if rule_of(self.method).needs_target:
            raise UserError(
                f"--method {self.method} reads class targets, and a linear map has none. Use another method."
            )
        if not 0 <= self.init_std < math.inf:
            raise UserError(f"--init-std {self.init_std}: a standard deviation is 0 or more, and finite.")
        if not 1 <= self.hidden <= WIDEST:
            raise UserError(f"--hidden {self.hidden}: give 1 to {WIDEST:,}; more would not fit in memory.")
        if not 0 < self.lr < math.inf:
            raise UserError(f"--lr {self.lr}: must be above 0, and finite.")
        if self.steps < 1:
            raise UserError(f"--steps {self.steps}: give at least 1.")


@dataclass(frozen=True, kw_only=True)
class Config(BaseConfig):
    """Learn a linear map with a linear network."""

    renamed: ClassVar = {"init": "--init-std", "epochs": "--steps"}

    preset: Flat[LinearPreset]
    data_dir: Unused = None  # the samples are drawn
    checkpoint_every: int = 500
    """Steps between checkpoints."""

    @staticmethod
    def choose(method: str | None = None) -> LinearPreset:
        """The settings that these options select."""
        return LinearPreset(method=method or Method.DFA)

    def lengths(self) -> dict[str, str]:
        """A run can be prolonged: nothing in it depends on its length."""
        return {"steps": ""}

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        start = f"_{self.preset.init_std:g}" if self.preset.init_std else ""
        return f"linear_{slug(self.preset.method)}{start}-{self.seed}"

    def settings(self) -> dict[str, Any]:
        """The settings that determine the run's numbers."""
        return {"dataset": "linear-map"} | vars(self.preset) | {"seed": self.seed}


class LinearNet(nn.Module):
    """x ``[B, 10]`` to W2 W1 x ``[B, 10]``, a feedback point between; weights of standard deviation `init`."""

    def __init__(self, hidden: int, init: float) -> None:
        super().__init__()
        self.first = nn.Linear(SIZE, hidden, bias=False)
        self.point = DFALayer()
        self.top = nn.Linear(hidden, SIZE, bias=False)
        for layer in (self.first, self.top):
            nn.init.normal_(layer.weight, std=init)

    def forward(self, x: Tensor) -> Tensor:
        """The product of both layers."""
        y: Tensor = self.top(self.point(self.first(x)))
        return y


@dataclass
class Trace(Record):
    """What was measured: the cost of every step, the rest every ten steps and after the last one."""

    costs: list[float] = field(default_factory=list)
    curves: dict[str, list[float]] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)

    def add(self, step: int, found: dict[str, float]) -> None:
        """Take a measurement; the last step's is a point of the curves only if it falls on one, or is all there is."""
        self.last = found
        if step % EVERY == 1 or not self.curves:
            for name, value in ({"step": step} | found).items():
                self.curves.setdefault(name, []).append(value)

    def metrics(self) -> dict[str, float]:
        """See `train`."""
        alignment = dict(zip(self.curves["step"], self.curves["alignment"], strict=True))
        first, eleventh = (alignment.get(step, math.nan) for step in (1, 1 + EVERY))
        reached = next((step / 1000 for step, cost in enumerate(self.costs) if cost <= LAST_PRINTED), math.nan)
        numbers = {"alignment_1": first, "alignment_11": eleventh, "thousand_steps": reached}
        return self.last | numbers | {"steps": len(self.costs)}


def make_task() -> tuple[Tensor, Tensor, Tensor]:
    """M ``[10, 10]``, samples ``[1000, 10]`` and targets ``[1000, 10]``, from torch's global generator."""
    m = torch.randint(-10, 10, (SIZE, SIZE)).double()
    x = torch.randn(SAMPLES, SIZE, dtype=torch.float64)
    return m, x, x @ m.T


def train(config: Config, run: Run | None = None, data: None = None) -> dict[str, Any]:
    """Train as `config` says; with a run, print the theory's quantities as it goes.

    Returns:
        The result. Its metrics are those of `measure` after the last step, the published cosine after step 1 and step
        11, the cost, the steps done and the thousands of steps to the last cost that the notebook prints; the curves
        are those of `measure` every ten steps. What is undefined is not a number (null in JSON): cosines of W2 with
        a feedback that the method does not have, the steps to a cost that was not reached.

    Raises:
        UserError: the training diverged.
    """
    preset, device = config.preset, pick_device(config.device)
    run = run or NullRun("vision", config.settings())
    seed_everything(config.seed)
    m, x, y = (part.to(device, precision(device)) for part in make_task())
    net = LinearNet(preset.hidden, preset.init_std).to(device, precision(device))
    feedback = Feedback(distribution="gaussian", scaling="none", seed=config.seed)
    attachment = attach(net, preset.method, feedback=feedback)
    attachment.loss_scale = 1.0  # the summed error may be large
    optimizer, trace = torch.optim.SGD(net.parameters(), preset.lr), Trace()
    state = {"net": net, "attachment": attachment, "trace": trace}
    for step in run.track(range(run.resume(state), preset.steps), f"linear, {preset.method}"):
        cost, error = train_step(net, x, y, optimizer)
        check_loss(cost, step)
        run.show(cost)
        trace.costs.append(cost)
        stuck = step > 0 and not any(p.grad is not None and p.grad.any() for p in net.parameters())
        is_last = stuck or cost <= TOLERANCE or step == preset.steps - 1
        if step % EVERY == 1 or is_last:
            trace.add(step, {"cost": cost} | measure(net, m, error, feedback_of(attachment)))
            run.log(step, **trace.last)
            run.say(described(step, trace.last, STUCK if stuck else ""))
        if is_last:
            break
        if (step + 1) % config.checkpoint_every == 0:
            run.save(step + 1, **state)
    return run.finish(model="linear", metrics=trace.metrics(), curves=trace.curves, device=device)


def train_step(net: nn.Module, x: Tensor, y: Tensor, optimizer: torch.optim.Optimizer) -> tuple[float, Tensor]:
    """One update; half the summed squared error before it, and the errors ``[B, 10]``."""
    optimizer.zero_grad()
    error = net(x) - y
    cost = error.square().sum() / 2
    cost.backward()
    optimizer.step()
    return cost.item(), error.detach()


@torch.no_grad()
def measure(net: LinearNet, m: Tensor, error: Tensor, feedback: Tensor | None) -> dict[str, float]:
    """The theory's quantities.

    Args:
        net: The network.
        m: What it is to learn, ``[10, 10]``.
        error: Errors ``[B, 10]`` of the pass before the last update, as the notebook takes them.
        feedback: B^T, ``[10, hidden]``; None: the method has none, and what needs it is not a number.

    Returns:
        "alignment": cosine between B and W2^T, each times the mean error, as the notebook has it. "alignment_weights":
        cosine between all of B^T and W2. "distance": sum of ``|W2 W1 - M|``. "norm_first", "norm_top": Frobenius norms
        of W1 and W2. "imbalance": ``|W1 W1^T - B W2 - (B W2)^T| / |W1 W1^T|``, 0 for small steps from zero.
    """
    first, top = net.first.weight, net.top.weight
    found = {
        "distance": (top @ first - m).abs().sum().item(),
        "norm_first": first.norm().item(),
        "norm_top": top.norm().item(),
    }
    if feedback is None:
        return found | dict.fromkeys(("alignment", "alignment_weights", "imbalance"), math.nan)
    b, mean = feedback.to(top.dtype), error.mean(dim=0)
    product, square = b.T @ top, first @ first.T
    return found | {
        "alignment": cosine(mean @ b, mean @ top),
        "alignment_weights": cosine(b, top),
        "imbalance": ((square - product - product.T).norm() / square.norm()).item(),
    }


def cosine(one: Tensor, other: Tensor) -> float:
    """Cosine between two tensors as vectors; not a number where one is zero."""
    if not (one.any() and other.any()):
        return math.nan
    return F.cosine_similarity(one.flatten(), other.flatten(), dim=0).item()


def feedback_of(attachment: Attachment) -> Tensor | None:
    """The feedback matrix ``[10, hidden]``, if the method has one."""
    return None if attachment.head is None else attachment.head.feedback_matrix


def described(step: int, found: dict[str, float], remark: str) -> str:
    """One line for the terminal, without what is undefined."""
    shown = ("cost", "distance", "norm_first", "norm_top", "alignment", "alignment_weights")
    numbers = [f"{name} {found[name]:.4g}" for name in shown if not math.isnan(found[name])]
    return "  ".join([f"step {step}", *numbers, remark]).rstrip()


def precision(device: torch.device) -> torch.dtype:
    """float64, or float32 where the device has no more."""
    return torch.float32 if device.type == "mps" else torch.float64


def load(config: Config) -> None:
    """The samples are drawn in `train`, by its seed."""


def train_and_draw(config: Config, run: Run, data: None) -> dict[str, Any]:
    """Train, and leave a picture of the theory's quantities in the run's folder."""
    from harness.methods import colour
    from vision.iacolippo.drawing import draw_theory

    result, method = train(config, run), config.preset.method
    write_whole(run.folder / "theory.png", draw_theory([(str(method), colour(method), [result])]))
    return result
