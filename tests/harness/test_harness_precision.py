"""Products of rounded factors: what is within is rounded, what is outside stays exact."""

import pytest
import torch

from harness.precision import products

FINE = 1 + 2.0**-12  # bfloat16 rounds it to 1


def product():
    x = torch.full((64, 64), FINE)
    return (x @ x)[0, 0].item() / 64


def exact():
    return pytest.approx(FINE**2, abs=1e-6)


def rounds():
    """Whether this processor has products of rounded factors; oneDNN leaves them exact where they would be slower."""
    with products("bf16"):
        return product() != exact()


def test_products_are_rounded_within_alone():
    if not rounds():
        pytest.skip("oneDNN does not round float32 factors on this processor")
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


def test_gradients_are_rounded_where_they_are_computed():
    if not rounds():
        pytest.skip("oneDNN does not round float32 factors on this processor")
    weight, x = torch.ones(64, 64, requires_grad=True), torch.full((64, 64), FINE)
    for precision, expected in (("bf16", 64.0), ("fp32", 64 * FINE)):
        weight.grad = None
        with products(precision):
            (x @ weight).sum().backward()
        assert weight.grad[0, 0].item() == pytest.approx(expected, rel=1e-6)
