"""The columns of the works-with matrix in which other people's software trains, or looks at, an attached model."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.func import functional_call, grad
from torch.nn.functional import cross_entropy

from tests.tinydfa.nets import Mlp, assert_gradients, batch, gradients_of
from tests.tinydfa.works_with import NOTES, REFUSALS, SEED, attached, reference, step
from tinydfa import DFAError, Feedback, attach


def refused(method: str, condition: str) -> bool:
    return NOTES.get((method, condition)) in REFUSALS


def accelerate(method: str) -> None:
    """A step under accelerate."""
    net, attachment = attached(method)
    accelerator = Accelerator(cpu=True)
    model = accelerator.prepare(net)
    x, y = batch()
    attachment.target = y
    accelerator.backward(cross_entropy(model(x), y))
    assert_gradients(net, reference(method))


@contextmanager
def one_process() -> Iterator[None]:
    """A process group of this process alone."""
    with TemporaryDirectory() as folder:
        store = Path(folder, "store")
        torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
        try:
            yield
        finally:
            torch.distributed.destroy_process_group()


def sharded(method: str) -> None:
    """A step of a model that is sharded after it was attached."""
    with one_process(), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "FSDP2-wrapped module .* returned a view"
        )  # of in-place changes of the output
        net, attachment = attached(method)
        fully_shard(net, mesh=init_device_mesh("cpu", (1,)))
        step(net, attachment, *batch())
        found = {name: gradient.full_tensor() for name, gradient in gradients_of(net).items()}
    expected = reference(method)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient)


def functional(method: str) -> None:
    """Gradients by torch.func, or a refusal."""
    net, attachment = attached(method)
    x, y = batch()
    attachment.target = y

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        return cross_entropy(functional_call(net, parameters, (x,)), y)

    parameters = {name: parameter.detach() for name, parameter in net.named_parameters()}
    if refused(method, "torch.func"):
        with pytest.raises(DFAError):
            grad(loss)(parameters)
        return
    found, expected = grad(loss)(parameters), reference(method)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected.get(name, torch.zeros_like(gradient)))


def replay(method: str) -> None:
    """A step without stored graphs, or a refusal."""
    net = Mlp()
    if refused(method, "replay"):
        with pytest.raises(DFAError, match="memory="):
            attach(net, method, memory="replay")
        return
    attachment = attach(net, method, feedback=Feedback(seed=SEED), memory="replay")
    step(net, attachment, *batch())
    assert_gradients(net, reference(method))


def export(method: str) -> None:
    """The exported program computes what the model computes."""
    net, _ = attached(method)
    x, _ = batch()
    program = torch.export.export(net.eval(), (x,))
    torch.testing.assert_close(program.module()(x), net(x))


CHECKS = {
    "accelerate": accelerate, "FSDP2": sharded, "torch.func": functional, "replay": replay, "export": export,
}  # fmt: skip
