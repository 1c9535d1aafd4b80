"""Products of rounded factors: what is within is rounded, what is outside stays exact."""

import pytest
import torch

from harness import precision as precisions
from harness.errors import UserError
from harness.precision import check_precision, cpu_rounds, fastest, products

FINE = 1 + 2.0**-12  # bfloat16 rounds it to 1


def product():
    x = torch.full((64, 64), FINE)
    return (x @ x)[0, 0].item() / 64


def exact():
    return pytest.approx(FINE**2, abs=1e-6)


rounded = pytest.mark.skipif(not cpu_rounds(), reason="this processor does not multiply in bfloat16")


@rounded
def test_products_are_rounded_within_alone():
    with products("bf16"):
        assert product() == 1
        with products("fp32"):
            assert product() == exact()
        assert product() == 1
    assert product() == exact()


def test_an_error_within_leaves_exact_products_behind():
    with pytest.raises(KeyError), products("bf16"):
        raise KeyError
    assert product() == exact()


@rounded
def test_gradients_are_rounded_where_they_are_computed():
    weight, x = torch.ones(64, 64, requires_grad=True), torch.full((64, 64), FINE)
    for precision, expected in (("bf16", 64.0), ("fp32", 64 * FINE)):
        weight.grad = None
        with products(precision):
            (x @ weight).sum().backward()
        assert weight.grad[0, 0].item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("able", [True, False])
def test_bfloat16_is_for_devices_that_multiply_in_it(able, monkeypatch):
    monkeypatch.setattr(precisions, "cpu_rounds", lambda: able)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert (fastest(cpu), fastest(gpu)) == ("bf16" if able else "fp32", "bf16")
    for precision, device in (("fp32", cpu), ("bf16", gpu)):
        check_precision(precision, device)
    if able:
        check_precision("bf16", cpu)
    else:
        with pytest.raises(UserError, match=r"--precision bf16: this processor.*Use --precision fp32"):
            check_precision("bf16", cpu)
