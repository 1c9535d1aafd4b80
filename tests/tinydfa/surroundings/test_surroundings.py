"""What other code puts around or inside a model: checkpointed blocks below a point, wrappers that call the model."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from tests.tinydfa.nets import Mlp, assert_gradients, batch, gradients_of
from tinydfa import DFAError, attach, doctor, measure_alignment
from tinydfa.surroundings.wrappers import unwrapped


class Block(nn.Module):
    """A layer that may be recomputed, skipped, or cut off inside."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layer, self.how = nn.Linear(inputs, outputs), "plain"

    def compute(self, x: Tensor) -> Tensor:
        return torch.tanh(self.layer(x))

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "skipped":
            return x
        if self.how in ("re-entrant", "checkpointed"):
            return checkpoint(self.compute, x, use_reentrant=self.how == "re-entrant")
        return self.compute(x).detach() if self.how == "detached" else self.compute(x)


def blocks() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(Block(6, 5), Block(5, 5), nn.Linear(5, 3))


def step(model: nn.Module) -> dict[str, Tensor]:
    x, y = batch()
    model.zero_grad()
    cross_entropy(model(x), y).backward()
    return gradients_of(model)


@pytest.mark.parametrize("how", ["re-entrant", "detached"])
@pytest.mark.parametrize("number", [0, 1])
def test_a_block_whose_weights_would_stay_is_refused(how, number):
    """A re-entrant checkpoint computes without a graph where no input asks for a gradient: below a point, none does."""
    model = blocks()
    model[number].how = how
    attach(model, "dfa", points=["0", "1"])
    text = rf"(?s)feedback point '{number}' has no graph.*'layer.weight'.*use_reentrant=False"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "None of the inputs have requires_grad=True")
        with pytest.raises(DFAError, match=text):
            step(model)


def test_blocks_that_are_recomputed_otherwise_get_the_same_gradients():
    model, plain = blocks(), blocks()
    for net in (model, plain):
        attach(net, "dfa", points=["0", "1"])
    model[0].how = model[1].how = "checkpointed"
    step(model)
    assert_gradients(model, step(plain))


def test_a_block_that_is_frozen_or_skipped_is_in_order():
    model = blocks()
    attach(model, "dfa", points=["0", "1"])
    model[1].how = "skipped"
    assert step(model).keys() == {"0.layer.weight", "0.layer.bias", "2.weight", "2.bias"}
    model[1].how = "plain"
    model[0].requires_grad_(False)
    assert step(model).keys() == {"1.layer.weight", "1.layer.bias", "2.weight", "2.bias"}
    model[0].requires_grad_(True)
    assert len(step(model)) == 6


def test_a_block_whose_weights_all_lie_below_a_point_inside_is_in_order():
    torch.manual_seed(0)
    block = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Dropout(0.5))
    model = nn.Sequential(block, nn.Linear(6, 3))
    attach(model, "dfa", points=["0.1", "0"])
    cross_entropy(model(torch.ones(2, 4)), torch.zeros(2, dtype=torch.long)).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_wrapped_model_is_attached_measured_and_examined_inside(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        net, (x, y) = Mlp(), batch()
        wrapped = DistributedDataParallel(net)
        assert unwrapped(torch.compile(wrapped)) is net
        examine(wrapped, net, x, y)
    finally:
        torch.distributed.destroy_process_group()


def test_a_model_of_lightning_fabric_is_attached_measured_and_examined_inside():
    fabric_of = pytest.importorskip("lightning.fabric", reason="needs lightning").Fabric
    net, (x, y) = Mlp(), batch()
    fabric = fabric_of(accelerator="cpu", devices=1, precision="bf16-mixed")
    wrapped = fabric.setup(net)
    examine(wrapped, net, x, y)
    net.zero_grad()
    fabric.backward(cross_entropy(wrapped(x), y))
    assert len(gradients_of(net)) == 8


def examine(wrapped: nn.Module, net: Mlp, x: Tensor, y: Tensor) -> None:
    attachment = attach(wrapped, "dfa")
    assert attachment.model is net

    def loss(model: nn.Module, data: tuple[Tensor, Tensor]) -> Tensor:
        return cross_entropy(model(data[0]), data[1])

    report = doctor(wrapped, (x, y), loss, compile=False, autocast=False)
    assert {name: kind.value for name, kind in report.parameters.items()} == {
        name: "bp" if name.startswith("top") else "method" for name, _ in net.named_parameters()
    }
    found = measure_alignment(wrapped, lambda model: loss(model, (x, y)))
    assert found == measure_alignment(net, lambda model: loss(model, (x, y)))
