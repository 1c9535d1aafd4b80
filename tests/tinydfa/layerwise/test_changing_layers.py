"""Layers that are parametrised, replaced, wrapped or added while a layer-wise rule is at work."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils import spectral_norm as hooked_spectral_norm

from tests.float64 import float64
from tinydfa import DFAError, attach, weight_alignment


@pytest.fixture(autouse=True)
def in_float64():
    torch.manual_seed(0)
    with float64():
        yield


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


X = torch.linspace(-1, 1, 28, dtype=torch.float64).reshape(7, 4)


def lowest(net: nn.Module) -> Tensor:
    """The gradient of the lowest weight, for a loss whose gradient at the output is 1."""
    net.zero_grad()
    net(X).sum().backward()
    return net[0].weight.grad.clone()


def by_hand(net: nn.Module, middle: Tensor, top: Tensor) -> Tensor:
    """The same when the signal goes through `top` and `middle` on its way down."""
    with torch.no_grad():
        h = torch.tanh(net[0](X))
        k = torch.tanh(net[2](h))
        delta = (torch.ones(7, 3) @ top * (1 - k**2)) @ middle * (1 - h**2)
        return delta.T @ X


def matrices(attachment, *names: str) -> list[Tensor]:
    return [attachment.state_dict()["layerwise"][f"{name}.feedback"].double() for name in names]


def hooked_weight_norm(layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the older form, which published models still use
        return nn.utils.weight_norm(layer)


NORMS = {
    "weight_norm": (parametrizations.weight_norm, lambda m: parametrize.remove_parametrizations(m, "weight")),
    "spectral_norm": (parametrizations.spectral_norm, lambda m: parametrize.remove_parametrizations(m, "weight")),
    "orthogonal": (parametrizations.orthogonal, lambda m: parametrize.remove_parametrizations(m, "weight")),
    "hooked weight_norm": (hooked_weight_norm, nn.utils.remove_weight_norm),
    "hooked spectral_norm": (hooked_spectral_norm, nn.utils.remove_spectral_norm),
}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("norm", NORMS)
def test_a_norm_put_on_and_taken_off_leaves_the_signal_its_matrix(norm, when):
    put, take = NORMS[norm]
    net = network().eval()  # spectral norm's vectors stand still
    if when == "before":
        put(net[2])
    attachment = attach(net, "fa")
    if when == "after":
        put(net[2])
    for change in (lambda: None, lambda: take(net[2])):
        change()
        torch.testing.assert_close(lowest(net), by_hand(net, *matrices(attachment, "2", "4")))
    attachment.detach()
    assert type(net[2]) is nn.Linear
    assert "forward" not in vars(net[2])
    torch.testing.assert_close(lowest(net), by_hand(net, net[2].weight.detach(), net[4].weight.detach()))


def test_a_norm_that_is_still_on_at_the_end_stays_on():
    net = network()
    attachment = attach(net, "frsf")
    parametrizations.weight_norm(net[2])
    keys = list(net.state_dict())
    attachment.detach()
    assert list(net.state_dict()) == keys
    assert parametrize.is_parametrized(net[2])
    torch.testing.assert_close(lowest(net), by_hand(net, net[2].weight.detach(), net[4].weight.detach()))


@pytest.mark.parametrize("method", ["fa", "frsf", "brsf"])
def test_spectral_norm_iterates_as_often_as_without_a_rule(method):
    nets = [network(), network()]
    nets[1].load_state_dict(nets[0].state_dict())
    for net in nets:
        torch.manual_seed(1)
        parametrizations.spectral_norm(net[2])
    attachment = attach(nets[0], method)
    weight_alignment(nets[0])
    for net in nets:
        for _ in range(3):
            net(X).sum().backward()
    attachment.state_dict()
    states = [net[2].parametrizations.weight[0].state_dict() for net in nets]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_signs_are_those_of_the_normed_weight():
    net = network()
    parametrizations.weight_norm(net[2])
    attachment = attach(net, "frsf")
    with torch.no_grad():
        net[2].parametrizations.weight.original0.neg_()  # g < 0 turns every sign round
    drawn, top = matrices(attachment, "2", "4")
    expected = by_hand(net, drawn.abs() * net[2].weight.detach().sign(), top.abs() * net[4].weight.detach().sign())
    torch.testing.assert_close(lowest(net), expected)


def test_a_layer_in_the_place_of_another_takes_over_its_matrix():
    net = network()
    attachment = attach(net, "fa")
    lowest(net)
    old, net[2] = net[2], nn.Linear(6, 5)
    torch.testing.assert_close(lowest(net), by_hand(net, *matrices(attachment, "2", "4")))
    assert vars(old).keys() == vars(nn.Linear(1, 1)).keys()
    assert old._modules == {}
    attachment.detach()
    assert vars(net[2]).keys() == vars(nn.Linear(1, 1)).keys()


def test_a_layer_of_another_size_or_at_another_place_gets_a_matrix_of_its_own():
    net = network()
    attachment = attach(net, "fa")
    lowest(net)
    net[2] = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 5))
    net[4] = nn.Linear(5, 2)
    net(X).sum().backward()
    first, second, top = matrices(attachment, "2.0", "2.1", "4")
    assert (first.shape, second.shape, top.shape) == ((6, 6), (5, 6), (2, 5))
    numbers = [int(n) for key, n in attachment.state_dict()["layerwise"].items() if key.endswith(".number")]
    assert len(set(numbers)) == len(numbers)


class Adapted(nn.Module):
    """A frozen layer with a low-rank one beside it, as adapters wrap it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Linear(base.in_features, 2, bias=False)
        self.up = nn.Linear(2, base.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_layer_that_an_adapter_wraps_keeps_its_matrix_and_the_adapter_gets_its_own(when):
    net = network()
    if when == "before":
        net[2] = Adapted(net[2])
    attachment = attach(net, "fa")
    if when == "after":
        before = matrices(attachment, "2")[0]
        net[2] = Adapted(net[2])
    found = lowest(net)
    base, down, up, top = matrices(attachment, "2.base", "2.down", "2.up", "4")
    assert when == "before" or torch.equal(base, before)
    torch.testing.assert_close(found, by_hand(net, base + up @ down, top))


def test_layers_that_came_later_go_on_with_the_same_fresh_magnitudes_after_a_resume():
    def grown() -> nn.Sequential:
        torch.manual_seed(0)
        return network()

    net = grown()
    attachment = attach(net, "brsf")
    lowest(net)
    torch.manual_seed(1)
    net[0] = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 6))
    net(X)
    saved, weights = attachment.state_dict(), net.state_dict()

    other = grown()
    other[0] = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 6))
    other.load_state_dict(weights)
    resumed = attach(other, "brsf")
    resumed.load_state_dict(saved)
    for each in (net, other):
        each.zero_grad()
        each(X).sum().backward()
    assert torch.equal(net[0][0].weight.grad, other[0][0].weight.grad)


def test_a_layer_that_cannot_be_given_a_matrix_is_told_when_it_comes():
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6))
    attach(net, "fa")
    net(X)
    net[2] = nn.GRU(6, 6)
    with pytest.warns(UserWarning, match="as in backpropagation: 2. Build"):
        net(X)


def test_compiled_submodules_keep_the_names_of_their_layers():
    net = network()
    net[2] = torch.compile(net[2], backend="eager")
    attachment = attach(net, "fa")
    assert "2.feedback" in attachment.state_dict()["layerwise"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_layers_prepared_for_quantisation_keep_the_matrix_of_the_layer_they_replace():
    quantization = pytest.importorskip("torch.ao.quantization", reason="this torch has no eager-mode quantisation")
    torch.set_default_dtype(torch.float32)
    net = network()
    attachment = attach(net.train(), "fa")
    before = matrices(attachment, "2", "4")
    net.qconfig = quantization.get_default_qat_qconfig("fbgemm")
    quantization.prepare_qat(net, inplace=True)
    assert type(net[2]) is not nn.Linear
    seen = {}
    for number in (0, 2):
        net[number].register_full_backward_hook(
            lambda module, into, out, number=number: seen.update({number: SimpleNamespace(into=into[0], out=out[0])})
        )
    net(X.float().requires_grad_()).sum().backward()
    torch.testing.assert_close(seen[2].into, seen[2].out @ before[0].float())
    assert torch.equal(matrices(attachment, "2")[0], before[0])


def test_a_state_of_other_layers_is_refused_by_name():
    net = network()
    saved = attach(net, "fa").state_dict()
    other = network()
    other[2] = Adapted(other[2])
    attachment = attach(other, "fa")
    with pytest.raises(DFAError, match=r"no matrix for 2.base, 2.down, 2.up of these shapes.*\(0, 2, 4\).*adapters"):
        attachment.load_state_dict(saved)
    saved["layerwise"]["2.base.feedback"] = torch.zeros(5, 7)
    with pytest.raises(DFAError, match=r"2\.base"):
        attachment.load_state_dict(saved)
    assert torch.isfinite(lowest(other)).all()


def test_weights_that_a_wrapper_holds_flattened_are_refused():
    net = network()
    net[2].weight = nn.Parameter(torch.zeros(0))
    with pytest.raises(DFAError, match=r"'2' has shape \(0,\).*Attach first, then wrap"):
        attach(net, "fa")
    assert "forward" not in vars(net[0])


class Tied(nn.Module):
    """Words whose table is also the output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.hidden, self.out = nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 9, bias=False)
        self.out.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(torch.tanh(self.hidden(self.table(ids))))


def test_a_weight_that_two_layers_share_gets_both_gradients_and_one_matrix():
    net, ids = Tied(), torch.tensor([0, 3, 3, 8])
    attachment = attach(net, "fa")
    out, hidden = matrices(attachment, "out", "hidden")
    net(ids).sum().backward()
    with torch.no_grad():
        x = net.table(ids)
        h = torch.tanh(net.hidden(x))
        delta = (torch.ones(4, 9) @ out) * (1 - h**2)
        expected = torch.ones(9, 4) @ h
        expected.index_add_(0, ids, delta @ hidden)
    torch.testing.assert_close(net.table.weight.grad, expected)
    torch.testing.assert_close(net.hidden.weight.grad, delta.T @ x)


def test_every_product_of_gpt2_goes_through_a_matrix_of_its_own():
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.set_default_dtype(torch.float32)
    sizes = {"vocab_size": 17, "n_positions": 8, "n_embd": 8, "n_layer": 2, "n_head": 2}
    net = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).eval()
    ids, gradients = torch.tensor([[1, 5, 3, 16]]), []
    for seed in (0, 1):
        attachment = attach(net, "fa", seed=seed)
        net.zero_grad()
        net(input_ids=ids, labels=ids).loss.backward()
        gradients.append({name: p.grad.clone() for name, p in net.named_parameters()})
        attachment.detach()
    same = {name for name, gradient in gradients[0].items() if torch.equal(gradient, gradients[1][name])}
    assert same == set()
