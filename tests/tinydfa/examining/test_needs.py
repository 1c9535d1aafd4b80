"""What a step keeps, by block, against what autograd is seen to save."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.tinydfa.blocks import MICRO, PreNorm
from tests.tinydfa.memory.small import TOKENS, data, loss_of
from tests.tinydfa.nets import gradients_of
from tinydfa import DFAError, attach, doctor, memory_needs

WIDTH, BATCH = 8, 16


def net(blocks: int = 3) -> nn.Sequential:
    layers = [nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU()) for _ in range(blocks)]
    return nn.Sequential(*layers, nn.Linear(WIDTH, 2))


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return cross_entropy(model(batch[0]), batch[1])


BATCHES = torch.randn(BATCH, WIDTH), torch.zeros(BATCH, dtype=torch.long)


def test_a_block_keeps_its_activation_and_the_first_one_its_input():
    model = net()
    attach(model, "dfa", points=["0", "1", "2"])
    needs = memory_needs(model, BATCHES, loss)
    one = 4 * BATCH * WIDTH
    assert needs.blocks == {"0": 2 * one, "1": one, "2": one}
    assert needs.everything == 4 * one + needs.top
    assert needs.one_block == 2 * one + needs.top
    assert 0 < needs.top < one


@pytest.mark.parametrize("memory", [None, "replay"])
def test_all_together_is_what_autograd_saves(memory):
    model, (x, y) = PreNorm(), data(TOKENS)
    attachment = attach(model, "dfa", points=MICRO, memory=memory)
    state = torch.get_rng_state()
    needs = memory_needs(model, (x, y), lambda model, batch: loss_of(model, *batch))
    assert torch.equal(torch.get_rng_state(), state)
    assert gradients_of(model) == {}
    attachment.detach()
    attach(model, "dfa", points=MICRO)
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        alive.append(tensor)
        return tensor

    alive: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss_of(model, x, y)
    for parameter in model.parameters():
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    assert needs.everything == sum(kept.values())


def test_doctor_prints_it():
    model = net()
    attach(model, "dfa", points=["0", "1", "2"], memory="replay")
    text = str(doctor(model, BATCHES, loss, compile=False, autocast=False))
    assert 'with memory="replay"' in text
    assert "nothing to change" in text


def test_a_model_that_is_not_attached_is_refused():
    with pytest.raises(DFAError, match="Attach a rule"):
        memory_needs(net(), BATCHES, loss)
