"""Topology strings: what they mean, and what is said about one that means nothing."""

import pytest
import torch

from harness.errors import UserError
from vision.models.topology import FC, Conv, TopologyNet, parse_topology


def test_the_published_string_describes_its_layers():
    assert parse_topology("CONV_32_5_1_2_FC_1000_FC_10") == (Conv(32, 5, 1, 2), FC(1000), FC(10))


@pytest.mark.parametrize(
    ("text", "position", "complaint"),
    [
        ("", 1, "a layer is missing"),
        ("conv_3_3_1_1_FC_10", 1, "'conv' is no layer"),
        ("CONV_32_5_1_FC_10", 13, "the padding of CONV is 'FC'"),
        ("CONV_32_0_1_1_FC_10", 9, "the kernel of CONV is '0'"),
        ("FC_10_", 7, "a layer is missing"),
        ("FC_", 4, "the width of FC is missing"),
        ("FC", 3, "the width of FC is missing"),
        ("FC_1.5", 4, "the width of FC is '1.5'"),
        ("FC_99999999999_FC_10", 4, "more than 10,000,000 would not fit in memory"),
        ("FC_10_12", 7, "'12' is no layer"),
        ("FC_10_CONV_1_1_1_1_FC_10", 7, "a CONV after an FC"),
        ("CONV_3_3_1_1", 13, "the last layer must be an FC"),
    ],
)
def test_a_mistake_is_marked_where_it_stands(text, position, complaint):
    with pytest.raises(UserError) as caught:
        parse_topology(text)
    message = str(caught.value)
    assert f"at character {position}," in message
    assert complaint in message
    assert f"({text[: position - 1]}>>>{text[position - 1 :]})" in message
    assert "Write CONV_<channels>" in message


def test_a_network_has_the_published_layers_and_sizes():
    net = TopologyNet("CONV_64_3_1_1_CONV_256_3_1_1_FC_1000_FC_1000_FC_10", (3, 32, 32))
    weights = [tuple(p.shape) for p in net.parameters() if p.dim() > 1]
    assert weights == [(64, 3, 3, 3), (256, 64, 3, 3), (1000, 256 * 8 * 8), (1000, 1000), (10, 1000)]
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_a_network_computes_what_its_layers_say():
    torch.manual_seed(0)
    net = TopologyNet("CONV_2_3_1_1_FC_5_FC_3", (1, 4, 6))
    x = torch.randn(2, 1, 4, 6)
    conv, first, top = net.convs[0].conv, net.fc.hidden[0].layer[0], net.fc.top
    h = torch.tanh(torch.nn.functional.conv2d(x, conv.weight, conv.bias, padding=1))
    pooled = h.unflatten(2, (2, 2)).unflatten(4, (3, 2)).amax(dim=(3, 5)).flatten(1)
    expected = torch.tanh(pooled @ first.weight.T + first.bias) @ top.weight.T + top.bias
    torch.testing.assert_close(net(x), expected)


def test_images_that_shrink_to_nothing_are_refused():
    with pytest.raises(UserError, match="nothing is left of an image of 8 x 8 after convolution 2"):
        TopologyNet("CONV_4_5_1_0_CONV_4_5_1_0_FC_10", (1, 8, 8))


def test_convolutions_of_vectors_are_refused():
    with pytest.raises(UserError, match="convolutions need images"):
        TopologyNet("CONV_4_3_1_1_FC_10", (256,))
