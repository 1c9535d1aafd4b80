"""What stays alive while a model trains without stored graphs, counted by a dispatch mode."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tinydfa import attach

WIDTH, BATCH = 32, 512
ONE = WIDTH * BATCH * 4  # bytes of an activation


class Live(TorchDispatchMode):
    """The most bytes that were alive at once of what was made in its block."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.held = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self.sizes and key not in given:
                    self.sizes[key] = storage.nbytes()
                    self.held += storage.nbytes()
                    self.peak = max(self.peak, self.held)
                    weakref.finalize(storage, self._freed, key)
        return result

    def _freed(self, key: int) -> None:
        self.held -= self.sizes.pop(key, 0)


def peak(blocks: int, method: str = "dfa", memory: Any = "replay", activation: type[nn.Module] = nn.ReLU) -> float:
    """Peak of a step over what was there before it, in activations of a block; gradients were there."""
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(WIDTH, WIDTH), activation()) for _ in range(blocks)]
    model = nn.Sequential(*layers, nn.Linear(WIDTH, 2))
    attachment = (
        None if method == "bp" else attach(model, method, points=[str(n) for n in range(blocks)], memory=memory)
    )
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    x, y = torch.randn(BATCH, WIDTH), torch.zeros(BATCH, dtype=torch.long)

    def step() -> None:
        if attachment is not None:
            attachment.target = y
        cross_entropy(model(x), y).backward()

    step()
    with Live() as live:
        step()
    return live.peak / ONE


@pytest.mark.parametrize(("method", "memory"), [("dfa", "replay"), ("dkp", "replay"), ("drtp", "forward")])
def test_memory_does_not_grow_with_depth(method, memory):
    assert peak(24, method, memory) - peak(6, method, memory) < 0.5


def test_one_block_is_alive_at_a_time():
    assert peak(24, "bp") > 24
    assert peak(24) < 4  # input and output of a block, its signal
    assert peak(24, activation=nn.Sigmoid) < 5


@pytest.mark.parametrize("kept", [0, 4, 12])
def test_a_budget_is_used_and_not_exceeded(kept):
    assert kept - 1 < peak(24, memory=kept * ONE) - peak(24) < kept + 1.5


def test_nothing_is_left_when_the_output_is_dropped():
    model: Callable[[Tensor], Tensor] = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 2))
    attachment = attach(model, "dfa", points=["1"], memory="replay")
    x = torch.randn(BATCH, WIDTH)
    model(x)
    with Live() as live:
        model(x)
        assert live.held < ONE / 4
    assert attachment.link.current.taker is None


def test_gradients_are_freed_by_an_optimiser_in_the_backward_pass():
    def grown(blocks: int) -> float:
        layers = [nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU()) for _ in range(blocks)]
        model = nn.Sequential(*layers, nn.Linear(WIDTH, 2))
        attach(model, "dfa", points=[str(n) for n in range(blocks)], memory="replay")

        def step(parameter: Tensor) -> None:
            parameter.data.add_(parameter.grad, alpha=-0.1)
            parameter.grad = None

        for parameter in model.parameters():
            parameter.register_post_accumulate_grad_hook(step)
        x, y = torch.randn(BATCH, WIDTH), torch.zeros(BATCH, dtype=torch.long)
        cross_entropy(model(x), y).backward()
        with Live() as live:
            cross_entropy(model(x), y).backward()
        return live.peak / ONE

    assert grown(24) - grown(6) < 0.5
