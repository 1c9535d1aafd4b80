"""Layers that layer-wise rules know or are told of: which matrix the signal goes through, by hand."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.float64 import float64
from tinydfa import DFAError, attach, doctor, register_layer
from tinydfa.errors import ShapeError


@pytest.fixture(autouse=True)
def in_float64():
    torch.manual_seed(0)
    with float64():
        yield


def gradients(layer: nn.Module, *inputs: Tensor, method: str = "fa"):
    """B, a random g, and what `layer` sends to its inputs and its parameters for it."""
    attachment = attach(nn.ModuleDict({"layer": layer}), method)
    inputs = [x.clone().requires_grad_() for x in inputs]
    output = layer(*inputs)
    g = torch.randn_like(output)
    found = torch.autograd.grad(output, [*inputs, *layer.parameters()], g)
    names = [name for name, _ in layer.named_parameters()]
    own = dict(zip(names, found[len(inputs) :], strict=True))
    return attachment.state_dict()["layerwise"]["layer.feedback"].double(), g, found[: len(inputs)], own


class Turned(nn.Module):
    """y = a (x @ W) + b with W ``[in, out]`` and a number a."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.kernel, self.bias = nn.Parameter(torch.randn(inputs, outputs)), nn.Parameter(torch.randn(outputs))
        self.size = nn.Parameter(torch.tensor(0.7))

    def forward(self, x: Tensor) -> Tensor:
        return self.size * (x @ self.kernel) + self.bias


register_layer(Turned, lambda layer, kernel, x: layer.size * (x @ kernel), weight="kernel")


def test_a_registered_product_sends_the_signal_through_b_and_trains_every_parameter_once():
    layer, x = Turned(5, 4), torch.randn(3, 5)
    back, g, (to_input,), own = gradients(layer, x)
    torch.testing.assert_close(to_input, 0.7 * g @ back.T)
    torch.testing.assert_close(own["kernel"], 0.7 * x.T @ g)
    torch.testing.assert_close(own["bias"], g.sum(0))
    torch.testing.assert_close(own["size"], (g * (x @ layer.kernel)).sum())


@pytest.mark.parametrize("method", ["usf", "frsf"])
def test_a_registered_product_follows_the_signs_of_its_weight(method):
    layer, x = Turned(5, 4), torch.randn(3, 5)
    drawn, g, (to_input,), _ = gradients(layer, x, method=method)
    size = drawn.abs() if method == "frsf" else (2 / 9) ** 0.5
    torch.testing.assert_close(to_input, 0.7 * g @ (size * layer.kernel.detach().sign()).T)


class Rounded(nn.Linear):
    """Computes with rounded weights and trains the exact ones, as quantisation-aware training does."""

    def forward(self, x: Tensor) -> Tensor:
        rounded = self.weight + ((self.weight * 8).round() / 8 - self.weight).detach()
        return F.linear(x, rounded, self.bias)


def test_a_class_that_is_like_linear_keeps_its_own_forward():
    register_layer(Rounded, nn.Linear)
    layer, x = Rounded(5, 4), torch.randn(2, 3, 5)
    plain = layer(x)
    back, g, (to_input,), own = gradients(layer, x)
    assert torch.equal(layer(x), plain)
    torch.testing.assert_close(to_input, g @ back)
    torch.testing.assert_close(own["weight"], g.flatten(0, 1).T @ x.flatten(0, 1))


def test_what_is_no_layer_and_a_product_of_another_shape_are_refused():
    with pytest.raises(DFAError, match=r"LayerNorm is no layer that a layer-wise rule knows \(Linear, .*function"):
        register_layer(Turned, nn.LayerNorm)

    class Wrong(Turned):
        def forward(self, x):
            return super().forward(x)

    register_layer(Wrong, lambda layer, kernel, x: x @ kernel[:, :1], weight="kernel")
    with pytest.raises(ShapeError, match=r"Wrong is registered with has shape \(3, 1\).*returns \(3, 4\)"):
        gradients(Wrong(5, 4), torch.randn(3, 5))


TRANSPOSED = {
    "1d": (nn.ConvTranspose1d(2, 3, 4, stride=2, padding=1, output_padding=1), (2, 2, 5)),
    "2d": (nn.ConvTranspose2d(4, 6, 3, stride=(2, 1), groups=2, dilation=2, bias=False), (2, 4, 5, 3)),
    "3d": (nn.ConvTranspose3d(2, 3, 2), (1, 2, 3, 2, 4)),
}


@pytest.mark.parametrize("case", TRANSPOSED)
def test_a_transposed_convolution_sends_the_signal_through_the_convolution_with_b(case):
    template, shape = TRANSPOSED[case]
    layer, x = copy.deepcopy(template).double(), torch.randn(shape)
    back, g, (to_input,), own = gradients(layer, x)
    convolve = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[x.dim()]
    expected = convolve(g, back, None, layer.stride, layer.padding, layer.dilation, layer.groups)
    torch.testing.assert_close(to_input, expected)
    truth = convolve(g, layer.weight.detach(), None, layer.stride, layer.padding, layer.dilation, layer.groups)
    assert not torch.allclose(to_input, truth)
    assert own["weight"].shape == layer.weight.shape


def test_a_transposed_convolution_takes_the_size_of_its_output():
    layer = nn.ConvTranspose1d(2, 3, 3, stride=2)
    attach(nn.ModuleDict({"layer": layer}), "fa")
    x = torch.randn(1, 2, 4, requires_grad=True)
    assert layer(x, output_size=[10]).shape == (1, 3, 10)
    layer(x, output_size=[10]).sum().backward()
    assert x.grad.shape == x.shape


def test_a_bilinear_layer_sends_each_input_its_product_with_b_and_the_other():
    layer, x, z = nn.Bilinear(4, 5, 3), torch.randn(6, 4), torch.randn(6, 5)
    back, g, (to_x, to_z), own = gradients(layer, x, z)
    torch.testing.assert_close(to_x, torch.einsum("no,oij,nj->ni", g, back, z))
    torch.testing.assert_close(to_z, torch.einsum("no,oij,ni->nj", g, back, x))
    torch.testing.assert_close(own["weight"], torch.einsum("no,ni,nj->oij", g, x, z))
    torch.testing.assert_close(own["bias"], g.sum(0))


def test_the_layer_of_gpt2_sends_the_signal_through_b():
    conv1d = pytest.importorskip("transformers.pytorch_utils", reason="transformers is not installed").Conv1D
    layer, x = conv1d(4, 5).double(), torch.randn(2, 3, 5)
    plain = layer(x).detach()
    back, g, (to_input,), own = gradients(layer, x)
    assert back.shape == (5, 4)
    torch.testing.assert_close(layer(x), plain)
    torch.testing.assert_close(to_input, g @ back.T)
    torch.testing.assert_close(own["weight"], x.flatten(0, 1).T @ g.flatten(0, 1))


@pytest.mark.parametrize("build", [lambda: Turned(5, 4), lambda: nn.Bilinear(5, 5, 4), lambda: nn.Linear(5, 4)])
def test_copies_and_replicas_compute_with_their_own_weights(build):
    layer = build()
    attach(nn.ModuleDict({"layer": layer}), "fa")
    inputs = [torch.randn(3, 5)] * (2 if isinstance(layer, nn.Bilinear) else 1)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), layer._replicate_for_data_parallel()):
        for name, parameter in layer.named_parameters():
            other._parameters.pop(name, None)
            setattr(other, name, torch.zeros_like(parameter))
        assert not other(*inputs).any()
        assert layer(*inputs).all()


def test_a_backward_hook_on_a_layer_sees_what_its_input_receives():
    layer, x, seen = nn.Linear(5, 4), torch.randn(3, 5, requires_grad=True), []
    layer.register_full_backward_hook(lambda module, inputs, outputs: seen.append(inputs[0]))
    attach(nn.ModuleDict({"layer": layer}), "fa")
    layer(x).sum().backward()
    torch.testing.assert_close(seen[0], x.grad)
    assert x.grad.any()


@pytest.mark.parametrize("method", ["fa", "usf", "brsf"])
def test_a_model_that_is_one_layer_is_attached_and_left_as_it_was(method):
    layer, x = nn.Linear(5, 4), torch.randn(3, 5, requires_grad=True)
    before = set(vars(layer))
    attachment = attach(layer, method)
    layer(x).sum().backward()
    assert not torch.allclose(x.grad, layer.weight.sum(0).expand(3, 5))
    attachment.detach()
    assert set(vars(layer)) == before
    assert layer._modules == {}


def test_a_layer_in_place_of_whose_forward_stands_another_is_left_usable():
    """As a wrapper does that moves weights: it calls the forward it found, also after the layer was put back."""
    net, x = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 2)), torch.randn(3, 5)
    plain = net(x)
    attachment = attach(net, "fa")
    inner = net[0].forward
    net[0].forward = lambda x: inner(x * 1.0)
    attachment.detach()
    torch.testing.assert_close(net(x), plain)
    net(x).sum().backward()
    torch.testing.assert_close(net[0].weight.grad, net[1].weight.sum(0).unsqueeze(1) * x.sum(0))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_a_registered_layer_compiles_into_one_graph():
    net = nn.Sequential(nn.Linear(5, 6), nn.ReLU(inplace=True), Turned(6, 4), nn.ReLU(inplace=True), nn.Linear(4, 2))
    attach(net, "fa")
    x = torch.randn(3, 5)
    net(x).sum().backward()
    expected = [parameter.grad.clone() for parameter in net.parameters()]
    net.zero_grad()
    torch.compile(net, fullgraph=True, backend="aot_eager")(x).sum().backward()
    for parameter, gradient in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


class Tokens(nn.Module):
    """A vision transformer's tables: a class token, positions, and a bias for every pair of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Linear(4, 6), nn.Linear(6, 3)
        self.token, self.positions = nn.Parameter(torch.randn(1, 1, 6)), nn.Parameter(torch.randn(1, 4, 6))
        self.relative_bias, self.gain = nn.Parameter(torch.randn(9, 2)), nn.Parameter(torch.randn(6, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.cat([self.token.expand(len(x), -1, -1), self.embed(x)], 1) + self.positions
        scores = (h @ h.transpose(1, 2)).unsqueeze(1) + self.relative_bias[:4].T.reshape(1, 2, 1, 4)
        return self.out((scores.softmax(-1) @ h.unsqueeze(1)).mean(1) * self.gain.flatten()).mean(1)


class Packed(nn.Module):
    """A layer whose forward takes a slice of a table, masks it, and multiplies by it."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.table, self.how = nn.Parameter(torch.randn(12, 6)), how
        self.register_buffer("mask", torch.ones(6, 6))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.table[:6] * self.mask
        if self.how == "einsum":
            return torch.einsum("ni,oi->no", x, weight)
        return x @ weight.T if self.how == "matmul" else F.linear(x, weight)


def test_tables_that_are_added_or_scaled_raise_no_alarm():
    net, x = Tokens(), torch.randn(2, 3, 4)
    attach(net, "fa")
    net(x).sum().backward()  # a warning here is an error
    assert doctor(net, x, lambda net, x: net(x).square().mean(), compile=False, autocast=False).healthy


@pytest.mark.parametrize("how", ["einsum", "matmul", "linear"])
def test_a_table_that_is_multiplied_by_is_told_in_the_first_pass_that_trains(how):
    net, x = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), Packed(how), nn.Linear(6, 2)), torch.randn(5, 4)
    attach(net, "fa")
    with torch.no_grad():
        net(x)
    with pytest.warns(UserWarning, match=r"by their own weights, as in backpropagation: 2\. .*register_layer"):
        net(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net(x)
    report = doctor(net, x, lambda net, x: net(x).square().mean(), compile=False, autocast=False)
    assert [finding.where for finding in report.findings] == [("2",)]


def test_a_table_below_every_layer_carries_no_signal_and_raises_no_alarm():
    net = nn.Sequential(Packed("matmul"), nn.Tanh(), nn.Linear(6, 2))
    attach(net, "fa")
    net(torch.randn(5, 6)).sum().backward()


class Quantised(nn.Module):
    """A layer whose weight is no parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.in_features, self.out_features = 6, 6
        self.register_buffer("packed", torch.eye(6))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.packed


@pytest.mark.parametrize(
    "layer", [nn.MultiheadAttention(6, 2), nn.LSTM(6, 6), nn.GRUCell(6, 6), Quantised(), Rounded(6, 6)]
)
def test_what_surely_multiplies_by_its_own_weights_is_told_at_once(layer):
    if isinstance(layer, Rounded):
        layer = type("Other", (nn.Linear,), {"forward": lambda self, x: F.linear(x, self.weight)})(6, 6)
    with pytest.warns(UserWarning, match="as in backpropagation: 1. Build"):
        attach(nn.Sequential(nn.Linear(6, 6), layer), "fa")
