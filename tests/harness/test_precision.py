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


rounded = pytest.mark.skipif(not cpu_rounds(), reason="oneDNN leaves float32 factors alone on this processor")


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
    monkeypatch.setattr(precisions, "cpu_multiplies", lambda: able)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert (fastest(cpu), fastest(gpu)) == ("bf16" if able else "fp32", "bf16")
    for precision, device in (("fp32", cpu), ("bf16", gpu)):
        check_precision(precision, device)
    if able:
        check_precision("bf16", cpu)
    else:
        with pytest.raises(UserError, match=r"--precision bf16: this processor.*Use --precision fp32"):
            check_precision("bf16", cpu)


@pytest.mark.parametrize(("rounds", "found"), [(True, torch.float32), (False, torch.bfloat16)])
def test_autocast_rounds_on_a_processor_where_onednn_does_not(rounds, found, monkeypatch):
    monkeypatch.setattr(precisions, "cpu_rounds", lambda: rounds)
    x = torch.ones(4, 4)
    with precisions.autocast("bf16", x):
        assert (x @ x).dtype == found
    with precisions.autocast("fp32", x):
        assert (x @ x).dtype == torch.float32


@pytest.mark.parametrize(("rounds", "has", "able"), [(True, False, True), (False, True, True), (False, False, False)])
def test_a_processor_multiplies_in_bfloat16_by_onednns_rounding_or_by_instructions_of_its_own(
    rounds, has, able, monkeypatch
):
    monkeypatch.setattr(precisions, "cpu_rounds", lambda: rounds)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has})
    assert precisions.cpu_multiplies() == able
