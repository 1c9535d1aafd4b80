"""fa, usf, brsf, frsf: a layer's input gradient through another matrix than the transposed weight, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.tinydfa.nets import Mlp, assert_gradients, batch, error_of, fill
from tinydfa import DFAError, Feedback, attach
from tinydfa.rules import KP

LAYERWISE = ["fa", "usf", "brsf", "frsf"]


def feedback_of(attachment, name: str, layer: nn.Module) -> Tensor:
    """B of a layer under fa, usf or frsf, from what the attachment saves and the definition."""
    drawn, method = attachment.state_dict()["layerwise"].get(f"{name}.feedback"), str(attachment.method)
    weight = layer.weight.detach()
    if method == "fa":
        return drawn
    if method == "frsf":
        return drawn.abs() * weight.sign()
    receptive = weight[0, 0].numel() if weight.dim() > 2 else 1
    size = (2 / (weight.shape[1] * receptive + weight.shape[0] * receptive)) ** 0.5
    return size * weight.sign()


@pytest.mark.parametrize("method", ["fa", "usf", "frsf"])
def test_linear_layers_walk_down_through_their_own_matrix(method):
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, method, seed=2)
    F.cross_entropy(net(x), y).backward()
    with torch.no_grad():
        h = [x]
        for layer in net.hidden:
            h.append(torch.tanh(h[-1] @ layer.weight.T + layer.bias))
        delta = error_of(h[-1] @ net.top.weight.T + net.top.bias, y)
        expected = {"top.weight": delta.T @ h[-1], "top.bias": delta.sum(0)}
        above, name = net.top, "top"
        for number in reversed(range(3)):
            delta = delta @ feedback_of(attachment, name, above) * (1 - h[number + 1] ** 2)
            above, name = net.hidden[number], f"hidden.{number}"
            expected |= {f"{name}.weight": delta.T @ h[number], f"{name}.bias": delta.sum(0)}
    assert_gradients(net, expected)


def single(layer: nn.Module, x: Tensor, method: str, seed: int = 0):
    """A lone layer under `method`: its attachment, and the gradients at input, weight, bias for a random g."""
    fill(layer, torch.Generator().manual_seed(1))
    attachment = attach(nn.ModuleDict({"layer": layer}), method, seed=seed)
    x = x.clone().requires_grad_()
    y = layer(x)
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
    y.backward(g)
    return attachment, g, x.grad


@pytest.mark.parametrize("method", ["fa", "usf", "frsf"])
@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5), (2, 2, 3, 5)])
def test_linear_on_any_number_of_batch_dimensions(method, shape):
    layer, x = nn.Linear(5, 4), torch.randn(shape)
    attachment, g, found = single(layer, x, method)
    rows, inputs = g.reshape(-1, 4), x.reshape(-1, 5)
    expected = (rows @ feedback_of(attachment, "layer", layer)).reshape(shape)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(layer.weight.grad, rows.T @ inputs)
    torch.testing.assert_close(layer.bias.grad, rows.sum(0))


CONVS = {
    "conv1d": (lambda: nn.Conv1d(4, 6, 3), (2, 4, 9)),
    "stride": (lambda: nn.Conv2d(2, 3, 3, stride=2, padding=1), (2, 2, 8, 7)),
    "dilation": (lambda: nn.Conv2d(2, 3, (3, 2), dilation=(2, 1), bias=False), (2, 2, 9, 8)),
    "groups": (lambda: nn.Conv2d(4, 6, 3, groups=2, padding=(0, 2)), (2, 4, 6, 6)),
    "same": (lambda: nn.Conv2d(2, 3, (3, 4), padding="same"), (2, 2, 6, 7)),
    "circular": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), (2, 2, 6, 6)),
    "reflect": (lambda: nn.Conv1d(2, 3, 3, padding=2, padding_mode="reflect", stride=2), (2, 2, 9)),
    "replicate same": (lambda: nn.Conv1d(2, 3, 4, padding="same", padding_mode="replicate"), (2, 2, 9)),
    "conv3d": (lambda: nn.Conv3d(2, 3, 2, stride=(1, 2, 1), padding=1), (1, 2, 4, 5, 4)),
    "unbatched": (lambda: nn.Conv2d(2, 3, 3), (2, 6, 6)),
}
FUNCTIONS = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}


def plain_convolution(layer: nn.Module, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution of `layer` with another weight, padded by hand."""
    per_dim = list(zip(layer.kernel_size, layer.dilation, strict=True))
    if layer.padding == "same":
        sides = [((k - 1) * d // 2, (k - 1) * d - (k - 1) * d // 2) for k, d in per_dim]
    else:
        sides = [(p, p) for p in layer.padding]
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = F.pad(x, [side for pair in reversed(sides) for side in pair], mode=mode)
    convolve = FUNCTIONS[weight.dim()]
    return convolve(x, weight, bias, stride=layer.stride, dilation=layer.dilation, groups=layer.groups)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@pytest.mark.parametrize("method", ["fa", "usf", "frsf"])
@pytest.mark.parametrize("case", CONVS)
def test_convolutions_send_the_signal_through_their_own_kernel(case, method):
    build, shape = CONVS[case]
    layer = build()
    x = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    attachment, g, found = single(layer, x, method, seed=5)
    kernel = feedback_of(attachment, "layer", layer)
    assert kernel.shape == layer.weight.shape
    through = x.clone().requires_grad_()
    expected = torch.autograd.grad(plain_convolution(layer, through, kernel, None), through, g)[0]
    torch.testing.assert_close(found, expected)
    own = [p for p in (layer.weight, layer.bias) if p is not None]
    truth = torch.autograd.grad(plain_convolution(layer, x, layer.weight, layer.bias), own, g)
    for parameter, gradient in zip(own, truth, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    attachment.detach()
    assert type(layer) in (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@pytest.mark.parametrize("layer", [nn.Linear(60, 40), nn.Conv2d(6, 8, 5)])
@pytest.mark.parametrize("distribution", ["uniform", "gaussian", "sign", "sparse"])
def test_random_matrices_have_glorots_standard_deviation(layer, distribution):
    attachment = attach(nn.ModuleDict({"layer": layer}), "fa", feedback=Feedback(distribution=distribution, seed=3))
    drawn = attachment.state_dict()["layerwise"]["layer.feedback"]
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(layer.weight)
    assert float(drawn.std()) == pytest.approx((2 / (fan_in + fan_out)) ** 0.5, rel=0.15)
    assert abs(float(drawn.mean())) < 0.15 * float(drawn.std())
    attachment.detach()


def input_gradient(layer: nn.Linear, x: Tensor) -> Tensor:
    """B as the layer used it in one pass, read off by sending unit signals down."""
    x = x.clone().requires_grad_()
    y = layer(x)
    return torch.stack([torch.autograd.grad(y, x, row.expand_as(y), retain_graph=True)[0][0] for row in torch.eye(8)])


def test_brsf_redraws_magnitudes_every_pass_and_keeps_the_signs():
    layer, x = nn.Linear(300, 8), torch.randn(1, 300)
    fill(layer, torch.Generator().manual_seed(1))
    attach(nn.ModuleDict({"layer": layer}), "brsf")
    first, second = input_gradient(layer, x), input_gradient(layer, x)
    assert torch.equal(first.sign(), layer.weight.detach().sign())
    assert torch.equal(second.sign(), layer.weight.detach().sign())
    correlation = torch.corrcoef(torch.stack([first.abs().flatten(), second.abs().flatten()]))[0, 1]
    assert abs(float(correlation)) < 0.1
    size = (2 / 308) ** 0.5
    assert float(first.square().mean().sqrt()) == pytest.approx(size, rel=0.05)


def test_brsf_draws_the_same_numbers_after_a_saved_state():
    x = torch.randn(1, 300)
    layers = [nn.Linear(300, 8), nn.Linear(300, 8)]
    layers[1].load_state_dict(layers[0].state_dict())
    attachments = [attach(nn.ModuleDict({"layer": layer}), "brsf") for layer in layers]
    for _ in range(3):
        layers[0](x)
    attachments[1].load_state_dict(attachments[0].state_dict())
    assert torch.equal(input_gradient(layers[0], x), input_gradient(layers[1], x))


@pytest.mark.parametrize("method", LAYERWISE)
def test_outputs_are_unchanged_and_the_layer_is_put_back(method):
    net, (x, _) = Mlp(), batch()
    before, keys = net(x), list(net.state_dict())
    attachment = attach(net, method)
    assert torch.equal(net(x), before)
    assert list(net.state_dict()) == keys
    assert isinstance(net.top, nn.Linear)
    attachment.detach()
    assert type(net.top) is nn.Linear
    assert dict(net.named_buffers()) == {}
    assert vars(net.top).keys() == vars(nn.Linear(1, 1)).keys()


def test_seeds_and_layers_have_matrices_of_their_own():
    states = [attach(Mlp((5, 5, 5, 5)), "fa", seed=seed).state_dict()["layerwise"] for seed in (0, 0, 1)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["top.feedback"], states[2]["top.feedback"])
    assert not torch.equal(states[0]["hidden.0.feedback"], states[0]["hidden.1.feedback"])


def test_linear_of_pytorch_geometric_is_a_linear_layer_too():
    geometric = pytest.importorskip("torch_geometric.nn", reason="PyTorch Geometric is not installed")
    layer, x = geometric.Linear(5, 4), torch.randn(3, 5)
    attachment, g, found = single(layer, x, "fa")
    torch.testing.assert_close(found, g @ feedback_of(attachment, "layer", layer))
    attachment.detach()
    assert type(layer) is geometric.Linear


class MyLinear(nn.Linear):
    """A user's subclass."""


@pytest.mark.parametrize("top", [MyLinear, lambda *sizes: nn.LazyLinear(sizes[1])])
def test_no_layer_above_is_silently_backpropagated(top):
    """Layers that `fa` cannot swap: a loud word, or the method itself, but not another method."""
    model, x, gradients = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), top(4, 3)), torch.randn(2, 5), []
    try:
        for seed in (0, 1):
            attachment = attach(model, "fa", seed=seed)
            model.zero_grad()
            model(x).sum().backward()
            gradients.append(model[0].weight.grad.clone())
            attachment.detach()
    except DFAError as error:
        assert "2" in str(error)  # noqa: PT017
    else:
        assert not torch.equal(*gradients), "another B, the same gradient: this was plain backpropagation"


def test_attention_is_not_silently_backpropagated():
    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.below, self.attention, self.top = nn.Linear(4, 4), nn.MultiheadAttention(4, 2), nn.Linear(4, 3)

        def forward(self, x):
            h = self.below(x)
            return self.top(self.attention(h, h, h)[0])

    with pytest.raises((DFAError, UserWarning), match="attention"):
        attach(Attends(), "fa")


def test_kolen_pollack_is_the_published_recursion_of_both_matrices():
    """Two layers; W and B lose the same share and take the same step, as in the code of Akrout et al."""
    decay, rate = 0.1, 0.5
    net = nn.Sequential(nn.Linear(4, 6, bias=False), nn.Tanh(), nn.Linear(6, 3, bias=False)).double()
    attachment = attach(net, KP(decay=decay), seed=5)
    first, top = (net[0].weight.detach().clone(), net[2].weight.detach().clone())
    back = attachment.state_dict()["layerwise"]["2.feedback"].double().clone()  # B of the top layer, at random
    gap = back - top
    for number in range(6):
        generator = torch.Generator().manual_seed(number)
        x = torch.randn(5, 4, generator=generator, dtype=torch.float64)
        y = torch.randint(0, 3, (5,), generator=generator)
        net.zero_grad()
        F.cross_entropy(net(x), y).backward()
        h = torch.tanh(x @ first.T)
        error = error_of(h @ top.T, y)
        for_top, for_first = error.T @ h, ((error @ back) * (1 - h**2)).T @ x
        torch.testing.assert_close(net[2].weight.grad, for_top)
        torch.testing.assert_close(net[0].weight.grad, for_first)
        first, top, back = (
            (1 - decay) * first - rate * for_first,
            (1 - decay) * top - rate * for_top,
            (1 - decay) * back - rate * for_top,
        )
        with torch.no_grad():
            for layer in (net[0], net[2]):
                layer.weight.mul_(1 - decay).sub_(rate * layer.weight.grad)
        with torch.no_grad():
            net(x)  # a pass that does not train changes nothing
    torch.testing.assert_close(back - top, 0.9**6 * gap)
