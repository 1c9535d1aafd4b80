"""What training without stored graphs refuses, and that it trains nothing wrongly before it says so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.tinydfa.blocks import Stack, Tied
from tests.tinydfa.memory.small import FLAT, data, loss_of
from tinydfa import DFAError, attach


def replayed(model: nn.Module, method: str = "dfa", memory: Any = "replay") -> Any:
    return attach(model, method, points=["blocks.*"], memory=memory)


@pytest.mark.parametrize("memory", ["forget", -1, 1.5, True])
def test_a_memory_that_does_not_exist(memory):
    with pytest.raises(DFAError, match=r"memory=.* is unknown. Choose 'replay', 'forward', a number of bytes"):
        replayed(Stack(), memory=memory)


@pytest.mark.parametrize("method", ["bp", "fa", "brsf"])
def test_rules_that_walk_back(method):
    with pytest.raises(DFAError, match=f"and {method} walks back through them"):
        replayed(Stack(), method)
    attachment = replayed(Stack())
    with pytest.raises(DFAError, match=f"and {method} walks back through them"):
        attachment.method = method
    assert attachment.method == "dfa"


@pytest.mark.parametrize("method", ["dfa", "sdfa", "dkp"])
def test_rules_that_need_the_error_in_the_forward_pass(method):
    with pytest.raises(DFAError, match=f"{method} needs the error"):
        replayed(Stack(), method, "forward")


class Noisy(Stack):
    """Randomness of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = np.random.default_rng(0)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + float(self.generator.normal()) * 0.01)


class Counting(Stack):
    """State that is no buffer: every second pass leaves a block out."""

    passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        for block in self.blocks[self.passes % 2 :]:
            x = block(x)
        return self.top(x)


class Growing(Stack):
    """More rows each time."""

    passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return super().forward(torch.cat([x] * self.passes))[: len(x)]


class Ending(Stack):
    """Fewer blocks each time."""

    passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        for block in self.blocks[: 5 - self.passes]:
            x = block(x)
        return self.top(x)


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (Noisy, "at feedback point 'blocks.0' the values are others"),
        (Counting, "feedback point 'blocks.0' came in place of 'blocks.1'"),
        (Growing, r"at feedback point 'blocks.0' the shape was \(8, 16\) and is \(16, 16\)"),
        (Ending, "it ended before 'blocks.3'"),
    ],
)
def test_a_model_that_does_not_repeat_itself(make, what):
    model, (x, y) = make(), data(FLAT)
    replayed(model)
    loss = loss_of(model, x, y)
    with pytest.raises(DFAError, match=what):
        loss.backward()


class WritesToItsInput(Stack):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mul_(2))


def test_a_forward_pass_that_writes_to_its_input():
    model, (x, y) = WritesToItsInput(), data(FLAT)
    replayed(model)
    with pytest.raises(DFAError, match=r"the forward pass wrote to a tensor of shape \(8, 16\).*x.clone\(\)"):
        loss_of(model, x, y)


@pytest.mark.parametrize("what", ["input", "weight"])
def test_what_was_written_to_before_the_backward_pass(what):
    model, (x, y) = Stack(), data(FLAT)
    replayed(model)
    loss = loss_of(model, x, y)
    with torch.no_grad():
        (x if what == "input" else model.blocks[1][0].weight).mul_(2)
    with pytest.raises(DFAError, match="between the forward and the backward pass"):
        loss.backward()
    assert all(parameter.grad is None for parameter in model.blocks.parameters())


def test_gradients_of_gradients():
    model, (x, y) = Stack(), data(FLAT)
    replayed(model)
    with pytest.raises(DFAError, match="create_graph=True"):
        torch.autograd.grad(loss_of(model, x, y), list(model.top.parameters()), create_graph=True)


def test_forward_training_notices_gradients_that_are_gone():
    model, (x, y) = Stack(), data(FLAT)
    attachment = replayed(model, "drtp", "forward")
    for number in range(2):
        attachment.target = y
        loss = loss_of(model, x, y)
        model.zero_grad()
        if number == 0:  # the first pass is replayed
            loss.backward()
            continue
        with pytest.raises(DFAError, match=r"call optimizer.zero_grad\(\) before the model"):
            loss.backward()


def test_forward_training_shows_no_hook_a_part_of_a_gradient():
    model, (x, y) = Tied(), data(FLAT)
    attachment = replayed(model, "drtp", "forward")
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(lambda parameter: None)
    attachment.target = y
    loss_of(model, x, y).backward()
    attachment.target = y
    with pytest.raises(DFAError, match="comes in parts"):
        loss_of(model, x, y)


def test_gradients_of_some_parameters_alone():
    model, (x, y) = Stack(), data(FLAT)
    replayed(model)
    with pytest.raises(DFAError, match=r"torch.autograd.grad and backward\(inputs=...\)"):
        torch.autograd.grad(loss_of(model, x, y), list(model.top.parameters()))
    with pytest.raises(DFAError, match=r"torch.autograd.grad and backward\(inputs=...\)"):
        loss_of(model, x, y).backward(inputs=list(model.top.parameters()))
    assert all(parameter.grad is None for parameter in model.parameters())


class CountingTwice(Stack):
    """A buffer that changes in every second pass."""

    def __init__(self) -> None:
        super().__init__()
        self.passes = 0
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.passes > 1:
            self.count += 1
        self.passes += 1
        return super().forward(x)


def test_a_buffer_that_changes_in_some_passes_alone():
    model, (x, y) = CountingTwice(), data(FLAT)
    replayed(model)
    loss_of(model, x, y).backward()
    loss = loss_of(model, x, y)
    with pytest.raises(DFAError, match="the buffer 'count' is changed by some forward passes"):
        loss.backward()
