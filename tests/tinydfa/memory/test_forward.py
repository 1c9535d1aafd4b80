"""Training in the forward pass (`memory=\"forward\"`): gradients are those of graphs that are kept."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.tinydfa.blocks import (
    Stack,
)
from tests.tinydfa.memory.small import FLAT, MODELS, assert_same, data, loss_of, train
from tests.tinydfa.nets import gradients_of
from tinydfa import Attachment, attach


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("method", ["drtp", "les"])
def test_a_rule_that_reads_targets_alone_in_the_forward_pass(method, name):
    def steps(model: nn.Module, attachment: Attachment, x: Tensor, y: Tensor) -> None:
        for number in (8, 8, 8, 4, 4, 8):  # another shape is replayed once
            attachment.target = y[:number]
            loss_of(model, x[:number], y[:number]).backward()

    exactly = name != "tied weights"
    assert_same(train(name, "forward", steps, method), train(name, None, steps, method), exactly)


def test_drtp_in_the_forward_pass_needs_no_error():
    model, (x, y) = Stack(), data(FLAT)
    attachment = attach(model, "drtp", points=["blocks.*"], memory="forward")
    attachment.target = y
    loss_of(model, x, y).backward()
    expected = gradients_of(model)
    model.zero_grad()
    attachment.target = y
    torch.manual_seed(5)
    model(x)
    assert set(gradients_of(model)) == {name for name in expected if name.startswith("blocks")}


def test_drtp_in_the_forward_pass_under_autocast():
    def steps(model: nn.Module, attachment: Attachment, x: Tensor, y: Tensor) -> None:
        for _ in range(2):
            attachment.target = y
            with torch.autocast("cpu", torch.bfloat16):
                loss = loss_of(model, x, y)
            loss.backward()

    for name in ("perceptron", "batch norm", "transformer, points inside"):
        assert_same(train(name, "forward", steps, "drtp"), train(name, None, steps, "drtp"))


def test_drtp_in_the_forward_pass_after_something_changed():
    def steps(model: nn.Module, attachment: Attachment, x: Tensor, y: Tensor) -> None:
        def step() -> None:
            attachment.target = y
            loss_of(model, x, y).backward()

        step()
        model.blocks[0].requires_grad_(False)
        step()
        model.blocks[0].requires_grad_(True)
        step()
        attachment.head.feedback_matrix = attachment.head.feedback_matrix * 2
        step()

    assert_same(train("perceptron", "forward", steps, "drtp"), train("perceptron", None, steps, "drtp"))
