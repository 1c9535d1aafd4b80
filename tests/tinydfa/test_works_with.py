"""Runs the works-with matrix: every method under every condition, and the README's table against it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from torch.utils.checkpoint import checkpoint

from tests.tinydfa.nets import Mlp, assert_gradients, batch, error_of, gradients_of, mlp_rule, one_hot
from tests.tinydfa.works_with import (
    CONDITIONS,
    LINEAR,
    METHODS,
    NOTES,
    SEED,
    attached,
    ddp_worker,
    matrix_markdown,
    reference,
    step,
    table_in,
)
from tinydfa import Feedback, attach

README = Path(__file__).parents[2] / "tinydfa" / "README.md"
HALVES = slice(0, 4), slice(4, 8)
pytestmark = [  # raised inside torch.compile itself
    pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.autograd.function.Function.* should not be instantiated"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf Tensor:UserWarning"),
]


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("method", METHODS)
def test_method_works_with(method, condition, request):
    extra = [request.getfixturevalue("ranks")] if condition == "DDP" else []
    CHECKS[condition](method, *extra)


def eager(method: str) -> None:
    """Two SGD steps by the rule written by hand."""
    net, attachment = attached(method)
    x, y = batch()
    for number in range(2):
        expected = by_hand(method, net, x, y, attachment, number)
        net.zero_grad()
        step(net, attachment, x, y)
        assert_gradients(net, expected)
        torch.optim.SGD(net.parameters(), lr=0.1).step()


def by_hand(method: str, net: Mlp, x: Tensor, y: Tensor, attachment, number: int) -> dict[str, Tensor]:
    if method in ("dfa", "sdfa", "tdfa", "drtp", "shallow"):
        signal = {
            "dfa": lambda e: e, "shallow": lambda e: e, "sdfa": torch.sign, "drtp": lambda e: one_hot(y),
            "tdfa": lambda e: e.sign() * (e.abs() > e.abs().mean()),
        }[method]  # fmt: skip
        drawn = torch.rand(3, 7, generator=torch.Generator().manual_seed(SEED)) * 2 - 1
        rule = mlp_rule(net, x, y, drawn, signal)
        return {name: g for name, g in rule.items() if method != "shallow" or name.startswith("top")}
    return walk_down(net, x, y, matrices(method, net, x, number))


def matrices(method: str, net: Mlp, x: Tensor, number: int) -> dict[str, Tensor]:
    """What each layer sends its signal through: the weight, or B read off a twin in the same pass."""
    layers = {name: layer for name, layer in net.named_modules() if isinstance(layer, nn.Linear)}
    if method == "bp":
        return {name: layer.weight.detach() for name, layer in layers.items()}
    twin, seen = Mlp(), {}
    twin.load_state_dict(net.state_dict())
    twin, _ = attached(method, twin)
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
    h = [x]
    for layer in net.hidden:
        h.append(torch.tanh(h[-1] @ layer.weight.T + layer.bias))
    delta = error_of(h[-1] @ net.top.weight.T + net.top.bias, y)
    expected = {"top.weight": delta.T @ h[-1], "top.bias": delta.sum(0)}
    for number, above in ((2, "top"), (1, "hidden.2"), (0, "hidden.1")):
        delta = delta @ matrix[above] * (1 - h[number + 1] ** 2)
        expected |= {f"hidden.{number}.weight": delta.T @ h[number], f"hidden.{number}.bias": delta.sum(0)}
    return expected


def compiled(method: str, backend: str = "aot_eager") -> None:
    """Compiled before it ever ran: the feedback is drawn inside the compiled forward pass."""
    torch.compiler.reset()
    net, attachment = attached(method)
    forward = torch.compile(net, fullgraph=True, backend=backend)
    x, y = batch()
    for number in range(2):
        net.zero_grad()
        step(net, attachment, x, y, forward)
        assert_gradients(net, reference(method, passes_before=number))
    with attachment.backprop():
        net.zero_grad()
        step(net, attachment, x, y, forward)
        assert_gradients(net, reference("bp"))
    with torch.no_grad():
        torch.testing.assert_close(forward(x), net(x))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dfa", "sdfa", "fa", "brsf"])
def test_inductor_gives_the_same_gradients(method):
    compiled(method, backend="inductor")


def bf16(method: str) -> None:
    net, attachment = attached(method)
    x, y = batch()

    def forward(x):
        with torch.autocast("cpu", torch.bfloat16):
            return net(x)

    step(net, attachment, x, y, forward)
    found, expected = gradients_of(net), reference(method)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert found[name].dtype is torch.float32
        assert cosine_similarity(found[name].flatten(), gradient.flatten(), dim=0) > 0.995, name
        assert float(found[name].norm() / gradient.norm()) == pytest.approx(1, abs=0.05), name


@pytest.fixture(scope="session")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    torch.multiprocessing.spawn(ddp_worker, (str(folder),), nprocs=2)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


def ddp(method: str, ranks) -> None:
    one, two = (rank[method] for rank in ranks)
    for key in ("first", "second"):
        assert one[key].keys() == two[key].keys()
        assert all(torch.equal(one[key][name], two[key][name]) for name in one[key])
        expected = (
            reference(method, passes_before=int(key == "second"))
            if method in (*LINEAR, "brsf")
            else mean([reference(method, half) for half in HALVES])
        )
        assert one[key].keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(one[key][name], gradient)
    matrices = [state["state"]["feedback_matrix"] for state in (one, two)]
    assert matrices[0] is matrices[1] is None or torch.equal(*matrices)
    layerwise = [state["state"]["layerwise"] for state in (one, two)]
    assert all(torch.equal(layerwise[0][name], layerwise[1][name]) for name in layerwise[0])


def mean(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: sum(part[name] for part in parts) / len(parts) for name in parts[0]}


def accumulation(method: str) -> None:
    """Two halves added: what each gives alone; for a method linear in the error, what the whole batch gives."""
    found = reference(method, *HALVES)
    alone = [reference(method, half, passes_before=number) for number, half in enumerate(HALVES)]
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, alone[0][name] + alone[1][name])
        if method in LINEAR:
            torch.testing.assert_close(gradient / 2, reference(method)[name])
    net, attachment = attached(method)
    for half in HALVES:
        step(net, attachment, *(data[half] for data in batch()), factor=0.5)
    carried = 1.0 if (method, "accumulation") in NOTES else 0.5
    for name, gradient in gradients_of(net).items():
        torch.testing.assert_close(gradient, found[name] * (0.5 if name.startswith("top") else carried))


def checkpointing(method: str) -> None:
    x, y = batch()
    for whole in (False, True):
        net, attachment = attached(method)
        if whole:
            step(net, attachment, x, y, lambda x, net=net: checkpoint(net, x, use_reentrant=False))
        else:
            for module in (net.hidden[1], net.points[1]):
                plain = module.forward
                module.forward = lambda *inputs, plain=plain: checkpoint(plain, *inputs, use_reentrant=False)
            step(net, attachment, x, y)
        assert_gradients(net, reference(method))


def resume(method: str) -> None:
    """Two steps, everything through a file into a fresh model, three more: bit for bit as if never interrupted."""
    net, optimizer, attachment = trainable(method, seed=SEED)
    train(net, optimizer, attachment, range(2))
    saved = {"model": net.state_dict(), "attachment": attachment.state_dict(), "optimizer": optimizer.state_dict()}
    file = io.BytesIO()
    torch.save(saved, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    train(net, optimizer, attachment, range(2, 5))
    other, other_optimizer, other_attachment = trainable(method, seed=SEED + 1)
    for target, key in ((other, "model"), (other_attachment, "attachment"), (other_optimizer, "optimizer")):
        target.load_state_dict(loaded[key])
    train(other, other_optimizer, other_attachment, range(2, 5))
    for name, parameter in net.named_parameters():
        assert torch.equal(parameter, other.get_parameter(name)), name


def trainable(method: str, seed: int):
    """A network with its optimizer and its attachment; weights and feedback by `seed`."""
    net = Mlp(seed=seed)
    return net, torch.optim.Adam(net.parameters(), lr=0.01), attach(net, method, feedback=Feedback(seed=seed))


def train(net: nn.Module, optimizer: torch.optim.Optimizer, attachment, steps: range) -> None:
    for number in steps:
        optimizer.zero_grad()
        step(net, attachment, *batch(seed=number))
        optimizer.step()


def test_readme_shows_the_matrix():
    assert table_in(README.read_text(encoding="utf-8")) == matrix_markdown()


CHECKS = {
    "eager": eager, "compiled": compiled, "bf16": bf16, "DDP": ddp, "accumulation": accumulation,
    "checkpointing": checkpointing, "resume": resume,
}  # fmt: skip
