"""Runs the works-with matrix: every method under every condition, and the README's table against it."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from torch.utils.checkpoint import checkpoint

from tests.processes import in_two_processes
from tests.tinydfa.nets import Mlp, assert_gradients, batch, gradients_of
from tests.tinydfa.surroundings import other_surroundings
from tests.tinydfa.works_with import (
    AFTER_A_PASS,
    CONDITIONS,
    ESTIMATED,
    LINEAR,
    LOCAL,
    LOOKING,
    METHODS,
    NOTES,
    REFUSED,
    SEED,
    UNSCALED,
    attached,
    by_hand,
    ddp_worker,
    matrix_markdown,
    reference,
    step,
    step_by_feedback,
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
        net.zero_grad()
        feedback = step_by_feedback(method, attachment, partial(step, net, attachment, x, y))
        expected = by_hand(method, net, x, y, number, feedback)
        assert_gradients(net, expected)
        torch.optim.SGD(net.parameters(), lr=0.1).step()


def compiled(method: str, backend: str = "aot_eager") -> None:
    """Compiled before it ever ran, unless noted: the feedback is drawn inside the compiled forward pass."""
    torch.compiler.reset()
    net, attachment = attached(method)
    forward = torch.compile(net, fullgraph=True, backend=backend)
    x, y = batch()
    if NOTES.get((method, "compiled")) == REFUSED:
        with pytest.raises(Exception, match="looks at some passes in another way"):
            forward(x)
        return
    if NOTES.get((method, "compiled")) in (AFTER_A_PASS, LOCAL):
        with pytest.raises(Exception, match="Call the model once before"):
            forward(x)
        with torch.no_grad():
            net(x)
    for number in range(2):
        net.zero_grad()
        step(net, attachment, x, y, forward)
        assert_gradients(net, reference(method, steps_before=number))
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

    for _ in range(2):
        net.zero_grad()
        feedback = step_by_feedback(method, attachment, partial(step, net, attachment, x, y, forward))
    found = gradients_of(net)
    expected = by_hand(method, net, x, y, 1, feedback) if method in ESTIMATED else reference(method, steps_before=1)
    assert attachment.head.learner is None or feedback.dtype is torch.float32
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert found[name].dtype is torch.float32
        assert cosine_similarity(found[name].flatten(), gradient.flatten(), dim=0) > 0.995, name
        assert float(found[name].norm() / gradient.norm()) == pytest.approx(1, abs=0.05), name


@pytest.fixture(scope="session")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    in_two_processes(ddp_worker, folder)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


def ddp(method: str, ranks) -> None:
    one, two = (rank[method] for rank in ranks)
    for key in ("first", "second"):
        assert one[key].keys() == two[key].keys()
        assert all(torch.equal(one[key][name], two[key][name]) for name in one[key])
        expected = expected_of_ranks(method, key, one)
        assert one[key].keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(one[key][name], gradient)
    matrices = [state["state"]["feedback_matrix"] for state in (one, two)]
    assert matrices[0] is matrices[1] is None or torch.equal(*matrices)
    learners = [state["state"]["learner"] for state in (one, two)]
    assert learners[0] is learners[1] is None or torch.equal(learners[0]["matrix"], learners[1]["matrix"])
    layerwise = [state["state"]["layerwise"] for state in (one, two)]
    assert all(torch.equal(layerwise[0][name], layerwise[1][name]) for name in layerwise[0])


def expected_of_ranks(method: str, key: str, rank: dict) -> dict[str, Tensor]:
    """The gradient of the whole batch; of a rule that is not linear in the error, the mean of the halves'."""
    if method in ESTIMATED:
        return by_hand(method, Mlp(), *batch(), 1, rank[f"feedback at the {key}"])
    if method in (*LINEAR, "brsf", "kp", "fitted", "calibrated"):
        return reference(method, steps_before=int(key == "second"))
    return mean([reference(method, half) for half in HALVES])


@pytest.mark.parametrize("kind", ["own head", "attached after"])
def test_ddp_with_a_head_of_its_own_or_attached_after_wrapping(kind, ranks):
    for rank in ranks:
        expected = reference("dfa")
        assert rank[kind].keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(rank[kind][name], gradient)


def mean(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: sum(part[name] for part in parts) / len(parts) for name in parts[0]}


def accumulation(method: str) -> None:
    """Two halves added: what each gives alone; for a method linear in the error, what the whole batch gives."""
    found = reference(method, *HALVES, told=2)
    alone = one_by_one(method) if method in LOOKING else [
        reference(method, half, steps_before=number, told=2) for number, half in enumerate(HALVES)
    ]  # fmt: skip
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, alone[0][name] + alone[1][name])
        if method in LINEAR:
            torch.testing.assert_close(gradient / 2, reference(method)[name])
    net, attachment = attached(method, parts=2)
    for half in HALVES:
        step(net, attachment, *(data[half] for data in batch()), factor=0.5)
    carried = 1.0 if method in UNSCALED else 0.5
    for name, gradient in gradients_of(net).items():
        torch.testing.assert_close(gradient, found[name] * (0.5 if name.startswith("top") else carried))


def one_by_one(method: str) -> list[dict[str, Tensor]]:
    """Gradients of two halves, one after the other, each on its own."""
    net, attachment = attached(method)
    found = []
    for half in HALVES:
        net.zero_grad()
        step(net, attachment, *(data[half] for data in batch()))
        found.append(gradients_of(net))
    return found


def checkpointing(method: str) -> None:
    x, y = batch()
    for whole in (False, True):
        net, attachment = attached(method)
        forward = None
        if whole:
            forward = partial(checkpoint, net, use_reentrant=False)
        else:
            for module in (net.hidden[1], net.points[1]):
                plain = module.forward
                module.forward = lambda *inputs, plain=plain: checkpoint(plain, *inputs, use_reentrant=False)
        feedback = step_by_feedback(method, attachment, partial(step, net, attachment, x, y, forward))
        expected = by_hand(method, net, x, y, 0, feedback) if method in ESTIMATED else reference(method)
        assert_gradients(net, expected)


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
    "checkpointing": checkpointing, "resume": resume, **other_surroundings.CHECKS,
}  # fmt: skip
