"""What holds for every test."""

import pytest

from harness.precision import set_products


@pytest.fixture(autouse=True)
def exact_products():
    """A run in bfloat16 sets the products of its whole process; the next test finds exact ones all the same."""
    yield
    set_products("fp32")
