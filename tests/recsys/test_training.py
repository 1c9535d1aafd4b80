"""One training: among several processes it does what it does alone, and on every device it can add up losses."""

from dataclasses import replace

import pytest
import torch

from recsys.log.batches import Batch
from recsys.preset import MODELS, Preset
from recsys.training import Training, has_untouched, sum_type
from tests.float64 import float64
from tests.processes import in_two_processes
from tinydfa import Method

CPU = torch.device("cpu")
DIMS = (3, 7, 2, 11, 5)
SIZES = {"embed": 4, "mlp": (9, 8), "cross_layers": 3, "attention": 6, "heads": 2, "attention_layers": 3, "neurons": 7}
DEEP = [model for model in MODELS if model != "fm"]


def preset(model, **changes):
    return Preset(model=model, lr=1e-2, **(SIZES | changes))


def trained(preset, rank=0, size=1, steps=3):
    """The training after some steps on this process's share of every batch."""
    training = Training(preset, DIMS, CPU, seed=1)
    generator = torch.Generator().manual_seed(2)
    for _ in range(steps):
        fields = torch.stack([torch.randint(0, size_, (64,), generator=generator) for size_ in DIMS], dim=1).int()
        labels = (torch.rand(64, generator=generator) < 0.3).float()
        training.step(Batch(fields[rank::size], labels[rank::size], len(fields)))
    return training


WITHHELD = {model: preset(model, method=Method.DFA, embedding_feedback="off") for model in DEEP}


def train_as_rank(rank, folder):
    for model, withheld in WITHHELD.items():
        with float64():
            training = trained(withheld, rank, size=2)
        if rank == 0:
            torch.save(training.model.state_dict(), folder / f"{model}.pt")


def test_two_processes_train_as_one_does_where_embeddings_learn_nothing(tmp_path):
    in_two_processes(train_as_rank, tmp_path)
    for model, withheld in WITHHELD.items():
        with float64():
            expected = trained(withheld).model.state_dict()
        found = torch.load(tmp_path / f"{model}.pt")
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("feedback", ["on", "off", "through"])
@pytest.mark.parametrize("method", [Method.BP, Method.DFA, Method.SHALLOW, Method.FRSF])
@pytest.mark.parametrize("model", DEEP)
def test_parameters_without_a_gradient_are_looked_for_where_there_are_any(model, method, feedback):
    chosen = replace(preset(model), method=method, embedding_feedback=feedback)
    parameters = trained(chosen, steps=1).model.parameters()
    assert has_untouched(chosen) == any(parameter.grad is None for parameter in parameters)


@pytest.mark.parametrize(("device", "expected"), [("cpu", torch.float64), ("mps", torch.float32)])
def test_losses_are_added_up_in_the_widest_type_of_the_device(device, expected):
    assert sum_type(torch.device(device)) == expected
