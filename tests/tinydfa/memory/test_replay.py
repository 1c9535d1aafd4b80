"""Training without stored graphs gives the gradients that it gives with them, bit for bit; or is refused in words."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from tests.tinydfa.blocks import (
    PreNorm,
    Stack,
    Tied,
)
from tests.tinydfa.memory.small import FLAT, MODELS, assert_same, data, loss_of, train
from tests.tinydfa.nets import Mlp, batch, gradients_of
from tinydfa import Attachment, Broadcast, Feedback, NeverStored, OpticalUnit, attach, measure_alignment

MEMORIES = ["replay", 3000, 2**30]


class Clipped(Broadcast):
    """A rule of the user's."""

    def encode(self, error: Tensor, target: Tensor | None) -> Tensor:
        return error.clamp(-0.01, 0.01)


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_the_same(name, memory, dtype):
    exactly = name != "tied weights"  # three gradients of one weight are added up in another order
    assert_same(train(name, memory, dtype=dtype), train(name, None, dtype=dtype), exactly)


@pytest.mark.parametrize("method", ["sdfa", "tdfa", "drtp", "dkp", Clipped])
@pytest.mark.parametrize("memory", ["replay", 3000])
def test_every_broadcasting_rule(method, memory):
    exactly = method != "dkp"  # a narrower product with the feedback may take another kernel
    assert_same(train("perceptron", memory, method=method), train("perceptron", None, method=method), exactly)


@pytest.mark.parametrize("name", ["perceptron", "batch norm", "transformer, points inside"])
def test_two_forward_passes_before_one_backward(name):
    def steps(model: nn.Module, attachment: Attachment, x: Tensor, y: Tensor) -> None:
        one, two = loss_of(model, x, y), loss_of(model, x.flip(0), y)
        (one + 2 * two).backward()

    assert_same(train(name, "replay", steps), train(name, None, steps))


@pytest.mark.parametrize("name", ["perceptron", "batch norm", "transformer, points inside"])
@pytest.mark.parametrize("memory", MEMORIES)
def test_bfloat16_autocast(name, memory):
    def steps(model: nn.Module, attachment: Attachment, x: Tensor, y: Tensor) -> None:
        for around in (False, True):  # the backward pass outside autocast, and inside
            with torch.autocast("cpu", torch.bfloat16):
                loss = loss_of(model, x, y)
                if around:
                    loss.backward()
            if not around:
                loss.backward()

    assert_same(train(name, memory, steps), train(name, None, steps))


@pytest.mark.parametrize("memory", MEMORIES)
def test_a_frozen_block(memory):
    def freeze(model: nn.Module) -> None:
        model.blocks[1].requires_grad_(False)

    assert_same(
        train("transformer, points inside", memory, prepare=freeze),
        train("transformer, points inside", None, prepare=freeze),
    )


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("name", ["perceptron", "transformer, points inside"])
def test_inputs_that_ask_for_a_gradient_get_it(name, memory):
    def run(memory: str | int | None) -> list[Tensor]:
        make, shape, where = MODELS[name]
        model, (x, y) = make(), data(shape)
        attach(model, "dfa", memory=memory, **where)
        scale = torch.ones((), requires_grad=True)
        x = x.requires_grad_()
        torch.manual_seed(5)
        loss_of(model, x * scale, y).backward()
        return [x.grad, scale.grad, *gradients_of(model).values()]

    for found, expected in zip(run(memory), run(None), strict=True):
        assert torch.equal(found, expected)


def test_a_graph_that_is_kept_can_be_walked_twice():
    def steps(model: nn.Module, attachment: Attachment, x: Tensor, y: Tensor) -> None:
        loss = loss_of(model, x, y)
        loss.backward(retain_graph=True)
        loss.backward()
        with pytest.raises(RuntimeError, match="second time"):
            loss.backward()

    assert_same(train("batch norm", "replay", steps), train("batch norm", None, steps))


def test_blocks_compiled_one_by_one():
    def compile_blocks(model: nn.Module) -> None:
        for block in model.blocks:
            block.compile(backend="aot_eager")

    torch.compiler.reset()
    expected = train("perceptron", None, prepare=compile_blocks)
    assert_same(train("perceptron", "replay", prepare=compile_blocks), expected)


def test_a_model_compiled_as_a_whole_is_refused():
    model, (x, _) = Stack(), data(FLAT)
    attach(model, "dfa", points=["blocks.*"], memory="replay")
    torch.compiler.reset()
    with pytest.raises(Exception, match="Compile its blocks"):
        torch.compile(model, fullgraph=True, backend="aot_eager")(x)


def test_an_optimiser_that_steps_when_a_gradient_is_there():
    def weights(memory: str | int | None, in_hooks: bool) -> dict[str, Tensor]:
        model, (x, y) = Tied(), data(FLAT)
        attach(model, "dfa", points=["blocks.*"], memory=memory)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

        def step(parameter: Tensor) -> None:
            parameter.data.add_(parameter.grad, alpha=-0.1)
            parameter.grad = None

        for parameter in model.parameters() if in_hooks else []:
            parameter.register_post_accumulate_grad_hook(step)
        torch.manual_seed(5)
        for _ in range(2):
            optimizer.zero_grad()
            loss_of(model, x, y).backward()
            optimizer.step()
        return model.state_dict()

    expected = weights(None, False)
    for name, weight in weights("replay", True).items():
        torch.testing.assert_close(weight, expected[name], msg=name)


def test_it_can_be_switched_suspended_and_looked_at():
    def steps(model: nn.Module, attachment: Attachment, x: Tensor, y: Tensor) -> None:
        with attachment.backprop():
            loss_of(model, x, y).backward()
        attachment.method = "sdfa"
        loss_of(model, x, y).backward()
        with torch.no_grad():
            model(x)
        measure_alignment(model, lambda model: loss_of(model, x, y))
        loss_of(model, x, y).backward()

    assert_same(train("batch norm", "replay", steps), train("batch norm", None, steps))


def test_a_pass_that_is_dropped_or_raises_leaves_nothing():
    def steps(model: nn.Module, attachment: Attachment, x: Tensor, y: Tensor) -> None:
        model(x)
        with pytest.raises(RuntimeError, match="shapes"):
            model(x[:, :3])
        torch.manual_seed(6)
        loss_of(model, x, y).backward()

    assert_same(train("perceptron", "replay", steps), train("perceptron", None, steps))


def test_a_copied_or_pickled_model_trains_in_the_same_way():
    for twin in (copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))):
        model, (x, y) = Mlp(), batch()
        attach(model, "dfa", memory="replay")
        cross_entropy(model(x), y).backward()
        expected = gradients_of(model)
        model.zero_grad()
        other = twin(model)
        cross_entropy(other(x), y).backward()
        for name, gradient in gradients_of(other).items():
            assert torch.equal(gradient, expected[name]), name


def test_the_whole_model_in_a_checkpoint():
    def steps(model: nn.Module, attachment: Attachment, x: Tensor, y: Tensor) -> None:
        for _ in range(2):
            loss = cross_entropy(checkpoint(model, x, use_reentrant=False).flatten(0, -2), y.flatten())
            loss.backward()

    for name in ("perceptron", "transformer, points inside"):
        assert_same(train(name, "replay", steps), train(name, None, steps))


class TwoHeads(Stack):
    """Two outputs, the second as wide as a class less."""

    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Linear(16, 15)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        for block in self.blocks:
            x = block(x)
        return {"first": self.top(x), "second": self.second(torch.tanh(x))}


class Nodes(Stack):
    """Rows of unequal number a sample, whose mean is the sample's output."""

    def forward(self, x: Tensor, sample: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        total = torch.zeros(4, 16).index_add(0, sample.clamp_min(0), x * (sample >= 0)[:, None])
        return self.top(total)


class SequenceFirst(PreNorm):
    """As before, with the samples in the second dimension: ``[5, B, 16]``."""

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x.transpose(0, 1)).transpose(0, 1).contiguous()
        return self.top(x[0])


def gradients(
    make: Callable[[], nn.Module],
    loss: Callable[[nn.Module, Attachment], Tensor],
    exactly: bool = True,
    **where: Any,
) -> None:
    """Those of two backward passes are the same with and without stored graphs."""

    def run(memory: str | int | None) -> dict[str, Tensor]:
        model = make()
        attachment = attach(model, "dfa", memory=memory, **where)
        torch.manual_seed(5)
        for _ in range(2):
            loss(model, attachment).backward()
        return gradients_of(model)

    expected = run(None)
    assert expected
    for memory in ("replay", 2000):
        found = run(memory)
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, msg=name, **({"rtol": 0, "atol": 0} if exactly else {}))


def test_errors_taken_at_two_outputs():
    x, y = data(FLAT)

    def loss(model: nn.Module, attachment: Attachment) -> Tensor:
        found = model(x)
        return cross_entropy(found["first"], y) + found["second"].square().mean()

    gradients(TwoHeads, loss, points=["blocks.*"], output=["[first]", "[second]"])


def test_rows_that_were_told_their_samples():
    x, _ = data((11, 16))
    sample = torch.tensor([0, 0, 1, 2, 2, 2, 3, -1, 3, 1, 0])

    def loss(model: nn.Module, attachment: Attachment) -> Tensor:
        with attachment.samples(sample):
            return model(x, sample).square().mean()

    gradients(Nodes, loss, points=["blocks.*"])


def test_samples_that_are_not_the_first_dimension():
    x, y = data((5, 8, 16))[0], data(FLAT)[1]

    def loss(model: nn.Module, attachment: Attachment) -> Tensor:
        return cross_entropy(model(x), y)

    gradients(SequenceFirst, loss, points=["blocks.*"])


def test_batch_dimensions_of_a_point():
    class Turned(PreNorm):
        class Turn(nn.Module):
            def __init__(self, block: nn.Module) -> None:
                super().__init__()
                self.block = block

            def forward(self, x: Tensor) -> Tensor:
                return self.block(x.transpose(0, 1)).transpose(0, 1)

        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(self.Turn(block) for block in self.blocks)

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = block(x)
            return self.top(x[0])

    x, y = data((5, 8, 16))[0], data(FLAT)[1]
    gradients(Turned, lambda model, _: cross_entropy(model(x), y), points=["blocks.*"], batch_dims={"blocks.*": (1,)})


@pytest.mark.parametrize("projector", [NeverStored(seed=1), OpticalUnit(seed=1, noise=0.1)])
def test_a_device_in_the_place_of_the_matrix(projector):
    x, y = data(FLAT)
    make = copy.deepcopy

    def run(memory: str | int | None) -> dict[str, Tensor]:
        model = Stack()
        attach(model, "tdfa", points=["blocks.*"], memory=memory, feedback=make(projector))
        torch.manual_seed(5)
        cross_entropy(model(x), y).backward()
        return gradients_of(model)

    expected = run(None)
    for memory in ("replay", 2000):
        found = run(memory)
        assert all(torch.equal(found[name], gradient) for name, gradient in expected.items())


def test_points_with_columns_of_their_own():
    x, y = data(FLAT)
    feedback = Feedback(shared=False)
    gradients(Stack, lambda model, _: cross_entropy(model(x), y), False, points=["blocks.*"], feedback=feedback)
