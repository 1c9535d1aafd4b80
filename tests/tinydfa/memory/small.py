"""Models and passes by which training without stored graphs is compared with graphs that are kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.tinydfa.blocks import (
    MICRO,
    Checkpointed,
    CheckpointedInside,
    NormNet,
    PreNorm,
    ReluNet,
    Stack,
    Tied,
    Tuples,
    WideAndDeep,
)
from tests.tinydfa.nets import gradients_of
from tinydfa import Attachment, attach

FLAT, PICTURE, TOKENS = (8, 16), (8, 2, 6, 6), (4, 5, 16)


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, Any]]] = {
    "perceptron": (Stack, FLAT, {"points": ["blocks.*"]}),
    "points inside blocks": (Stack, FLAT, {"points": ["blocks.*.0", "blocks.*"]}),
    "batch norm": (NormNet, PICTURE, {"points": ["blocks.*"]}),
    "channels last": (ReluNet, PICTURE, {"points": ["blocks.*"]}),
    "transformer": (PreNorm, TOKENS, {"points": ["blocks.*"]}),
    "transformer, points inside": (PreNorm, TOKENS, {"points": MICRO}),
    "error inside the model": (PreNorm, TOKENS, {"points": MICRO, "output": "body"}),
    "tuples": (Tuples, FLAT, {"points": ["blocks.*[1][h]"]}),
    "a branch around all points": (WideAndDeep, FLAT, {"points": ["blocks.*"]}),
    "tied weights": (Tied, FLAT, {"points": ["blocks.*"]}),
    "checkpointed blocks": (Checkpointed, FLAT, {"points": ["blocks.*"]}),
    "blocks checkpointed inside": (CheckpointedInside, FLAT, {"points": ["blocks.*"]}),
    "the output is a point": (Stack, FLAT, {"points": ["blocks.*", "top"]}),
    "one point": (lambda: nn.Sequential(Stack(), nn.Tanh(), Stack()), FLAT, {"points": ["1"]}),
}


def data(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator).to(dtype)
    samples = shape[:-1] if len(shape) == 3 else shape[:1]
    return x, torch.randint(0, 16, samples, generator=generator)


def loss_of(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return cross_entropy(model(x).float().flatten(0, -2), y.flatten())


def train(
    name: str,
    memory: str | int | None,
    steps: Callable[[nn.Module, Attachment, Tensor, Tensor], None] | None = None,
    method: Any = "dfa",
    dtype: torch.dtype = torch.float32,
    prepare: Callable[[nn.Module], object] = lambda model: None,
) -> tuple[dict[str, Tensor], dict[str, Tensor], float]:
    """Gradients, buffers and the generator's next number after some steps of a fresh model."""
    make, shape, where = MODELS[name]
    model = make().to(dtype)
    prepare(model)
    attachment = attach(model, method, memory=memory, **where)
    x, y = data(shape, dtype)
    torch.manual_seed(5)
    (steps or two_passes)(model, attachment, x, y)
    buffers = {key: buffer.clone() for key, buffer in model.named_buffers()}
    return gradients_of(model), buffers, float(torch.rand(()))


def two_passes(model: nn.Module, attachment: Attachment, x: Tensor, y: Tensor) -> None:
    for _ in range(2):
        attachment.target = y
        loss_of(model, x, y).backward()


def assert_same(found: Any, expected: Any, exactly: bool = True) -> None:
    """Equal to the last bit: gradients, buffers, generators."""
    for one, other in zip(found[:2], expected[:2], strict=True):
        assert one.keys() == other.keys()
        for key, tensor in other.items():
            torch.testing.assert_close(
                one[key],
                tensor,
                msg=lambda text, key=key: f"{key}: {text}",
                **({"rtol": 0, "atol": 0} if exactly else {}),
            )
    assert found[2] == expected[2]
