"""`attach` on models that were not written for it: a ResNet, a Transformer whose blocks return tuples, a graph network.

The oracle does not look at the library's hooks: a layer between two points gets the gradient that plain autograd gives
when its input is cut and the hand-made signal ``e @ F[:, :d] / sqrt(D)`` enters at its output.
"""

from __future__ import annotations

import copy
from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.tinydfa.nets import Mlp, batch, error_of
from tests.tinydfa.surroundings.foreign import Output, ResNet, Transformer
from tinydfa import DFAError, DFALayer, attach, attachment_of


def cut_gradients(stages: list[nn.Module], top: nn.Module, x: Tensor, y: Tensor, matrix: Tensor) -> list[Tensor]:
    """Gradients of every parameter of `stages`, in order, each stage cut from the next, by plain autograd."""
    outputs, h = [], x
    for stage in stages:
        outputs.append(stage(h))
        h = outputs[-1].detach()
    error = error_of(top(h).detach(), y)
    found: list[Tensor] = []
    for stage, out in zip(stages, outputs, strict=True):
        width = out[0].numel()
        signal = error @ matrix[:, :width] / matrix.shape[1] ** 0.5
        found += torch.autograd.grad(out, list(stage.parameters()), signal.reshape(out.shape))
    return found


def test_residual_network_by_its_layers():
    net, plain = ResNet(), ResNet()
    plain.load_state_dict(net.state_dict())
    x, y = batch(4, 3, 8, 8)
    keys = list(net.state_dict())
    attachment = attach(net, "dfa", points=["layer*"], seed=1)
    assert list(attachment.points) == ["layer1", "layer2", "layer3", "layer4"]
    F.cross_entropy(net(x), y).backward()
    assert attachment.points == {"layer1": 256, "layer2": 96, "layer3": 32, "layer4": 10}
    assert list(net.state_dict()) == keys
    stem = nn.Sequential(plain.conv1, plain.bn1, plain.relu, plain.layer1)
    top = nn.Sequential(plain.avgpool, nn.Flatten(), plain.fc)
    stages = [stem, plain.layer2, plain.layer3, plain.layer4]
    expected = cut_gradients(stages, top, x, y, attachment.head.feedback_matrix)
    trained = [p for p in net.parameters() if p is not net.fc.weight and p is not net.fc.bias]
    for parameter, gradient in zip(trained, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


@pytest.mark.parametrize("method", ["shallow", "sdfa", "drtp", "fa", "frsf"])
def test_residual_network_trains_by_every_kind_of_method(method):
    torch.manual_seed(0)
    net, (x, y) = ResNet(), batch(16, 3, 8, 8)
    attachment = attach(net, method, points=["layer?.*"])
    optimizer, losses = torch.optim.Adam(net.parameters(), lr=0.01), []
    for _ in range(30):
        attachment.target = y
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("returns", ["mapping", "tuple", "loss"])
def test_transformer_whose_blocks_return_tuples(returns):
    net, plain = Transformer(returns), Transformer()
    ids = torch.randint(0, 11, (2, 5))
    labels = torch.randint(0, 11, (2, 5))
    output = "lm_head" if returns == "loss" else None
    attachment = attach(net, "dfa", points=["embed", "layers.*"], output=output)
    assert list(attachment.points) == ["embed", "layers.0", "layers.1", "layers.2"]
    if returns == "loss":
        net(ids, labels).loss.backward()
    else:
        out = net(ids)
        assert type(out) is (Output if returns == "mapping" else tuple)
        logits = out.logits if returns == "mapping" else out[0]
        F.cross_entropy(logits.flatten(0, 1), labels.flatten()).backward()
    matrix = attachment.head.feedback_matrix
    assert matrix.shape == (11, 6)

    hs = [plain.embed(ids)]
    for layer in plain.layers:
        hs.append(layer(hs[-1].detach())[0])
    error = error_of(plain.lm_head(hs[-1].detach()).detach().flatten(0, 1), labels.flatten())
    signal = (error @ matrix / 6**0.5).reshape(2, 5, 6)
    for name, stage, h in zip(attachment.points, (plain.embed, *plain.layers), hs, strict=True):
        truth = torch.autograd.grad(h, list(stage.parameters()), signal)
        for parameter, gradient in zip(net.get_submodule(name).parameters(), truth, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, atol=1e-6, rtol=1e-4)


def test_graph_network_of_pytorch_geometric():
    geometric = pytest.importorskip("torch_geometric.nn", reason="PyTorch Geometric is not installed")

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.ModuleList([geometric.GCNConv(6, 5), geometric.GCNConv(5, 4), geometric.GCNConv(4, 3)])

        def forward(self, x: Tensor, edges: Tensor) -> Tensor:
            for conv in self.convs[:-1]:
                x = torch.tanh(conv(x, edges))
            return self.convs[-1](x, edges)

    net, (x, y) = Net(), batch(7)
    edges = torch.tensor([[0, 1, 2, 3, 4, 5, 1, 2, 3], [1, 2, 3, 4, 5, 6, 0, 1, 2]])
    labelled = torch.tensor([0, 2, 5])
    attachment = attach(net, "dfa", points=["convs.0", "convs.1"])
    F.cross_entropy(net(x, edges)[labelled], y[labelled]).backward()
    matrix = attachment.head.feedback_matrix
    adjacency = torch.eye(7)
    adjacency[edges[1], edges[0]] = 1
    degree = adjacency.sum(1)
    adjacency = adjacency / degree.sqrt()[:, None] / degree.sqrt()[None, :]
    with torch.no_grad():
        h, expected = x, []
        for conv in net.convs:
            pre = adjacency @ h @ conv.lin.weight.T + conv.bias
            expected.append((conv, h))
            h = torch.tanh(pre)
        error = torch.zeros(7, 3)
        error[labelled] = error_of(pre[labelled], y[labelled])
        for conv, below in expected[:-1]:  # the point is at the convolution's output, before tanh
            signal = error @ matrix[:, : conv.out_channels] / 5**0.5
            torch.testing.assert_close(conv.lin.weight.grad, (adjacency.T @ signal).T @ below)
            torch.testing.assert_close(conv.bias.grad, signal.sum(0))


def test_patterns_select_by_dots_and_keep_the_models_order():
    net = ResNet()
    for patterns, names in (
        (["layer2.*"], ["layer2.0", "layer2.1"]),
        ("layer[12]", None),
        (["layer2", "layer1"], ["layer1", "layer2"]),
        (["**.conv2"], ["layer1.0.conv2", "layer1.1.conv2", "layer2.0.conv2", "layer2.1.conv2", "layer3.0.conv2", "layer4.0.conv2"]),  # noqa: E501
        (["layer?"], ["layer1", "layer2", "layer3", "layer4"]),
    ):  # fmt: skip
        if names is None:  # no character classes: brackets stand for themselves
            with pytest.raises(DFAError, match="matches no submodule"):
                attach(net, "dfa", points=patterns)
            continue
        attachment = attach(net, "dfa", points=patterns)
        assert list(attachment.points) == names
        attachment.detach()


def test_points_at_the_output_itself_get_the_true_gradient():
    net, (x, y) = nn.Sequential(OrderedDict(a=nn.Linear(6, 5), b=nn.Tanh(), c=nn.Linear(5, 3))), batch()
    plain = copy.deepcopy(net)
    F.cross_entropy(plain(x), y).backward()
    attach(net, "dfa", points=["b", "c"])
    F.cross_entropy(net(x), y).backward()
    assert torch.equal(net.c.weight.grad, plain.c.weight.grad)
    assert not torch.equal(net.a.weight.grad, plain.a.weight.grad)


def test_the_copy_of_an_attached_model_finds_its_attachment():
    net = Mlp()
    attachment = attach(net, "dfa")
    assert attachment_of(net) is attachment
    copied = copy.deepcopy(net)
    assert attachment_of(copied).model is copied
    assert attachment_of(Mlp()) is None


def test_points_kept_in_plain_lists_are_reached_through_a_head_in_the_model():
    """A DFALayer that no module registers is invisible to attach, which must say so rather than train on."""

    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.below, self.top, self.points = nn.Linear(6, 5), nn.Linear(5, 3), [DFALayer()]

        def forward(self, x: Tensor) -> Tensor:
            return self.top(self.points[0](torch.tanh(self.below(x))))

    with pytest.raises(DFAError, match="has no DFALayer"):
        attach(Hidden(), "dfa")
