"""Batch normalisation in two processes, against torch's over all rows in one."""

import pytest
import torch
from torch import nn

from recsys.models.shared_norm import BatchNorm
from tests.processes import in_two_processes

WIDTH = 3
# Of bfloat16 the results alone are rounded.
TOLERANCES = {
    torch.float64: {"rtol": 1e-10, "atol": 1e-10},
    torch.float32: {"rtol": 1e-4, "atol": 1e-4},
    torch.bfloat16: {"rtol": 1e-2, "atol": 1e-2},
}


def exact(dtype):
    """What weights and sums are in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def draw(dtype):
    """Rows far from zero, in which sums in bfloat16 would lose most of the variance, and their gradient."""
    generator = torch.Generator().manual_seed(0)
    x = 20 + torch.randn(501, WIDTH, generator=generator) * torch.tensor([0.5, 1.0, 3.0])
    return x.to(dtype), torch.randn(501, WIDTH, generator=generator).to(dtype)


def scaled(norm):
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
        norm.bias.copy_(torch.tensor([1.0, -1.0, 0.0]))
    return norm


def normalise(norm, x, gradient):
    """What it gives, its gradients, and its running statistics."""
    x = x.clone().requires_grad_()
    y = norm(x)
    y.backward(gradient)
    return {
        "y": y.detach(),
        "of x": x.grad,
        "of weight": norm.weight.grad,
        "of bias": norm.bias.grad,
        "mean": norm.running_mean,
        "variance": norm.running_var,
    }


def normalise_as_rank(rank, folder, dtype):
    x, gradient = draw(dtype)
    found = normalise(scaled(BatchNorm(WIDTH)).to(exact(dtype)), x[rank::2], gradient[rank::2])
    torch.save(found, folder / f"{rank}.pt")


@pytest.mark.parametrize("dtype", list(TOLERANCES))
def test_two_processes_normalise_as_one_does_over_all_rows(dtype, tmp_path):
    in_two_processes(normalise_as_rank, tmp_path, dtype)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    x, gradient = draw(dtype)
    whole = normalise(scaled(nn.BatchNorm1d(WIDTH)).to(exact(dtype)), x.to(exact(dtype)), gradient.to(exact(dtype)))
    for name, expected in whole.items():
        if name in ("y", "of x"):
            assert first[name].dtype == dtype
            found = torch.empty_like(expected)
            found[0::2], found[1::2] = first[name], second[name]
        else:
            found = first[name] + second[name] if name.startswith("of") else first[name]
        torch.testing.assert_close(found.to(exact(dtype)), expected, **TOLERANCES[dtype])
