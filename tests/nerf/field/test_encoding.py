"""The encoding's values and their order, which a saved network depends on."""

import math

import torch

from nerf.field.encoding import encode, encoded_width


def test_the_order_is_input_then_sine_and_cosine_of_every_frequency():
    x = torch.tensor([[0.3, -1.2, 2.5]], dtype=torch.float64)
    found = encode(x, 4)[0].tolist()
    expected = x[0].tolist()
    for power in (1, 2, 4, 8):
        expected += [math.sin(power * value) for value in (0.3, -1.2, 2.5)]
        expected += [math.cos(power * value) for value in (0.3, -1.2, 2.5)]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected))


def test_published_widths_are_63_and_27():
    assert encoded_width(3, 10) == encode(torch.zeros(2, 5, 3), 10).shape[-1] == 63
    assert encoded_width(3, 4) == encode(torch.zeros(2, 5, 3), 4).shape[-1] == 27


def test_without_frequencies_the_input_is_its_own_encoding():
    x = torch.randn(4, 3)
    assert encode(x, 0) is x
    assert encoded_width(3, 0) == 3
