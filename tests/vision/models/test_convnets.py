"""Convolutional networks: their published sizes, what they compute, and what their hidden layers receive."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness.errors import UserError
from tinydfa import DFALayer, Feedback, Method, attach
from vision.models.convnets import LeNet, LeNetMNIST, PrincipledCNN
from vision.models.resnet import ResNet

CIFAR = (3, 32, 32)
MODELS = {
    "cnn": PrincipledCNN,
    "lenet": LeNet,
    "lenet-mnist": LeNetMNIST,
    "resnet": lambda shape: ResNet(1, shape),
}


def batch(shape=CIFAR, samples=4):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(samples, *shape, generator=generator), torch.randint(0, 10, (samples,), generator=generator)


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def points(model):
    return [name for name, module in model.named_modules() if isinstance(module, DFALayer)]


def conv(before, after, kernel):
    return before * after * kernel**2 + after


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (lambda: PrincipledCNN(CIFAR), conv(3, 32, 5) + conv(32, 64, 5) + conv(64, 64, 5) + 577 * 128 + 129 * 10),
        (lambda: PrincipledCNN(CIFAR, batch_norm=True), 231_306 + 2 * (32 + 64 + 64 + 128)),
        (lambda: LeNet(CIFAR), conv(3, 32, 3) + conv(32, 64, 3) + conv(64, 128, 3) + 129 * 256 + 257 * 10),
        (lambda: LeNetMNIST((1, 32, 32)), 61_706),  # LeNet-5, every map of its second layer connected
        (lambda: ResNet(3, CIFAR), 269_722),  # published: 0.27 M
        (lambda: ResNet(9, CIFAR), 853_018),  # published: 0.85 M
    ],
)
def test_a_network_has_as_many_parameters_as_counted_by_hand(model, expected):
    assert count(model()) == expected


def test_a_residual_network_of_n_blocks_has_as_many_layers_as_its_name_says():
    for blocks, layers in ((3, 20), (9, 56)):
        model = ResNet(blocks, CIFAR)
        assert sum(isinstance(module, nn.Conv2d | nn.Linear) for module in model.modules()) == layers
        assert len(points(model)) == 1 + 3 * blocks


@pytest.mark.parametrize("shape", [CIFAR, (1, 28, 28)])
@pytest.mark.parametrize("name", ["cnn", "lenet", "resnet"])
def test_images_of_other_sizes_give_logits_too(name, shape):
    x, _ = batch(shape)
    assert MODELS[name](shape)(x).shape == (4, 10)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("method", list(Method))
def test_every_method_trains_a_step_of_every_network(name, method):
    torch.manual_seed(0)
    model = MODELS[name](CIFAR)
    x, y = batch()
    attachment = attach(model, method)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    attachment.target = y if method is Method.DRTP else None
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    assert math.isfinite(loss.item())
    for name, parameter in model.named_parameters():
        hidden = not name.startswith(("fc.top", "top"))
        moved = not torch.equal(parameter, before[name])
        assert moved != (method is Method.SHALLOW and hidden), name


def test_dfa_gives_each_convolution_the_slice_of_the_projected_error_behind_its_pool():
    torch.manual_seed(0)
    model = PrincipledCNN((2, 20, 17))
    x, y = batch((2, 20, 17))
    attachment = attach(model, "dfa", feedback=Feedback(scaling="point", seed=3))
    F.cross_entropy(model(x), y).backward()
    matrix = attachment.head.feedback_matrix
    error = (model(x).softmax(dim=1) - F.one_hot(y, 10)) / len(y)
    h = x
    for stage, size in zip(model.stages, [(32, 9, 8), (64, 4, 3), (64, 1, 1)], strict=True):
        weight = stage.layer[0].weight.detach().requires_grad_()
        bias = stage.layer[0].bias.detach().requires_grad_()
        out = F.max_pool2d(torch.tanh(F.conv2d(h, weight, bias, padding=2)), 3, 2)
        assert out.shape[1:] == size
        width = math.prod(size)
        signal = error @ matrix[:, :width] / math.sqrt(10 * width)
        expected = torch.autograd.grad(out, (weight, bias), signal.reshape(out.shape))
        torch.testing.assert_close(stage.layer[0].weight.grad, expected[0])
        torch.testing.assert_close(stage.layer[0].bias.grad, expected[1])
        h = out.detach()
    linear = model.fc.hidden[0].layer[0]
    hidden = torch.tanh(h.flatten(1) @ linear.weight.T + linear.bias)
    delta = error @ matrix[:, :128] / math.sqrt(10 * 128) * (1 - hidden**2)
    torch.testing.assert_close(linear.weight.grad, delta.T @ h.flatten(1))
    torch.testing.assert_close(model.fc.top.weight.grad, error.T @ hidden)


def plain_cnn():
    def stage(*size):
        return nn.Conv2d(*size, 5, padding=2), nn.LeakyReLU(0.1), nn.BatchNorm2d(size[1]), nn.MaxPool2d(3, 2)

    top = nn.Linear(576, 128), nn.LeakyReLU(0.1), nn.BatchNorm1d(128), nn.Linear(128, 10)
    return nn.Sequential(*stage(3, 32), *stage(32, 64), *stage(64, 64), nn.Flatten(), *top)


def plain_lenet():
    convs = nn.Conv2d(3, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2)
    last = nn.Conv2d(64, 128, 3), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten()
    return nn.Sequential(*convs, *last, nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 10))


def plain_lenet_mnist():
    convs = nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)
    last = nn.Conv2d(16, 120, 5), nn.ReLU(), nn.Flatten()
    return nn.Sequential(*convs, *last, nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10))


@pytest.mark.parametrize(
    ("model", "plain"),
    [
        (lambda: PrincipledCNN(CIFAR, act="leaky-relu-0.1", batch_norm=True), plain_cnn),
        (lambda: LeNet(CIFAR), plain_lenet),
        (lambda: LeNetMNIST(CIFAR), plain_lenet_mnist),
    ],
)
def test_backpropagation_of_an_unattached_network_is_that_of_plain_layers(model, plain):
    ours, theirs = model(), plain()
    pairs = list(zip(ours.parameters(), theirs.parameters(), strict=True))
    with torch.no_grad():
        for mine, other in pairs:
            other.copy_(mine)
    x, y = batch()
    for net in (ours, theirs):
        F.cross_entropy(net(x), y).backward()
    for mine, other in pairs:
        torch.testing.assert_close(mine.grad, other.grad)


def test_a_shortcut_that_halves_the_image_takes_every_second_pixel_and_adds_channels_of_zeros():
    block = ResNet(1, CIFAR).blocks[1]
    nn.init.zeros_(block.layers[4].weight)  # the last batch norm: what is left is the shortcut
    x = torch.rand(2, 16, 6, 6)
    y = block(x)
    assert y.shape == (2, 32, 3, 3)
    torch.testing.assert_close(y[:, 8:24], x[:, :, ::2, ::2])
    assert not y[:, :8].any()
    assert not y[:, 24:].any()


def test_a_block_computes_the_residual_function():
    block = ResNet(1, CIFAR).blocks[0]
    first, _, _, second, _ = block.layers
    x = torch.randn(2, 16, 5, 5)

    def normalised(h):
        return (h - h.mean((0, 2, 3), keepdim=True)) / (h.var((0, 2, 3), keepdim=True, correction=0) + 1e-5).sqrt()

    h = normalised(F.conv2d(x, first.weight, padding=1)).relu()
    expected = (normalised(F.conv2d(h, second.weight, padding=1)) + x).relu()
    torch.testing.assert_close(block(x), expected)


def test_dropout_rates_belong_to_input_convolutions_and_linear_layers():
    def share(model, module):
        seen = []
        module.register_forward_hook(lambda module, inputs, output: seen.append((output == 0).float().mean().item()))
        model(torch.randn(64, *CIFAR))
        return seen[0]

    torch.manual_seed(0)
    model = PrincipledCNN(CIFAR, input_dropout=0.2, conv_dropout=0.4, inner_dropout=0.6)
    assert share(model, model.input_dropout) == pytest.approx(0.2, abs=0.1)
    assert share(model, model.stages[1].layer[1]) == pytest.approx(0.4, abs=0.05)
    assert share(model, model.fc.hidden[0].layer[1]) == pytest.approx(0.6, abs=0.05)


def test_building_a_network_leaves_batch_norm_as_it_starts():
    model = PrincipledCNN(CIFAR, batch_norm=True)
    assert all(module.training for module in model.modules())
    assert not any(b.any() for name, b in model.named_buffers() if "running_mean" in name or "tracked" in name)


def test_images_that_shrink_to_nothing_are_refused():
    with pytest.raises(UserError, match=r"PrincipledCNN: nothing is left of an image of 8 x 8 in stage 3. Pad"):
        PrincipledCNN((1, 8, 8))
    with pytest.raises(UserError, match="LeNetMNIST: nothing is left of an image of 28 x 28 in stage 3"):
        LeNetMNIST((1, 28, 28))


@pytest.mark.parametrize("name", MODELS)
def test_vectors_are_refused(name):
    with pytest.raises(UserError, match=r"convolutions need images, and a sample here has shape \(256,\)"):
        MODELS[name]((256,))
