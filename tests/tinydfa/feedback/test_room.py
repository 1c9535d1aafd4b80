"""A feedback matrix that does not fit is refused before it is drawn; passes without numbers draw none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.nn.functional import cross_entropy, mse_loss

from tests.draws import feedback_generator
from tests.tinydfa.nets import Mlp, assert_gradients, batch, mlp_rule
from tinydfa import DFAError, DFALayer, Feedback, Head, NeverStored, attach
from tinydfa.errors import ShapeError
from tinydfa.feedback import room


class Denoiser(nn.Module):
    """A dense net: [B, 2, 6, 5] in and out, with one hidden layer of 7 channels and its point."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.low, self.high = nn.Conv2d(2, 7, 3, padding=1), nn.Conv2d(7, 2, 1)
        self.double()
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=generator) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.high(torch.tanh(self.low(x)))


def noise() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(3, 2, 6, 5, generator=generator).double() for _ in range(2))
    return x, y


def low_gradient(net: Denoiser, x: Tensor, signal: Tensor) -> Tensor:
    """The gradient of the lower weight when `signal` ``[B, 7, 6, 5]`` reaches what its layer returns."""
    output = nn.functional.conv2d(x, net.low.weight, net.low.bias, padding=1)
    return torch.autograd.grad(output, net.low.weight, signal)[0]


def error_of(net: Denoiser, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return 2 * (net(x) - y) / y.numel()


def free(monkeypatch, size: float) -> None:
    monkeypatch.setattr(room, "free_bytes", lambda: int(size))


def test_a_matrix_of_every_pixel_by_every_feature_is_refused_by_its_size(monkeypatch):
    """A denoiser of [B, 4, 64, 64] against a point of [B, 320, 64, 64]: 16384 x 1310720 numbers, 86 GB."""
    free(monkeypatch, 12e9)
    net = nn.Sequential(nn.Conv2d(4, 320, 1), nn.Conv2d(320, 4, 1))
    attach(net, "dfa", points=["0"], batch_dims=(0,))
    expected = r"(?s)c = 16,384.*D = 1,310,720.*85\.9 GB.*12 GB are free.*batch_dims=\(0, 2, 3\).*NeverStored\(\)"
    with pytest.raises(DFAError, match=expected):
        net(torch.randn(1, 4, 64, 64))


@pytest.mark.parametrize("distribution", ["uniform", "gaussian", "sign", "sparse"])
def test_what_drawing_needs_beside_the_matrix_counts(monkeypatch, distribution):
    drawn = torch.empty(0)
    peak = {"uniform": 4, "gaussian": 4, "sign": 12, "sparse": 9}[distribution]
    free(monkeypatch, 100 * 200 * peak)
    drawn = Feedback(distribution=distribution).draw(100, 200)
    assert drawn.shape == (100, 200)
    free(monkeypatch, 100 * 200 * peak - 1)
    with pytest.raises(DFAError, match="c = 100"):
        Feedback(distribution=distribution).draw(100, 200)


def test_the_first_way_out_channels_as_widths(monkeypatch):
    net, (x, y) = Denoiser(), noise()
    free(monkeypatch, 2 * 7 * 4)
    attach(net, "dfa", points=["low"], batch_dims=(0, 2, 3))
    mse_loss(net(x), y).backward()
    matrix = (torch.rand(2, 7, generator=feedback_generator(0)) * 2 - 1).double()
    signal = torch.einsum("bchw,cd->bdhw", error_of(net, x, y), matrix) / 7**0.5
    torch.testing.assert_close(net.low.weight.grad, low_gradient(net, x, signal))


def test_the_other_way_out_a_matrix_that_is_never_stored(monkeypatch):
    net, (x, y) = Denoiser(), noise()
    free(monkeypatch, 0)
    attachment = attach(net, "dfa", points=["low"], batch_dims=(0,), feedback=NeverStored(seed=3))
    mse_loss(net(x), y).backward()
    matrix = attachment.effective_feedback().double()
    assert matrix.shape == (2 * 6 * 5, 7 * 6 * 5)
    signal = (error_of(net, x, y).flatten(1) @ matrix).view(3, 7, 6, 5) / (7 * 6 * 5) ** 0.5
    torch.testing.assert_close(net.low.weight.grad, low_gradient(net, x, signal))


def test_what_is_free_is_a_number_of_this_machine(tmp_path, monkeypatch):
    machine = room.free_bytes()
    assert machine is None or machine > 2**20
    monkeypatch.setattr(room, "CGROUP", tmp_path)
    for name, text in {
        "memory.max": "1000",
        "memory.current": "700",
        "memory.stat": "anon 1\ninactive_file 50",
    }.items():
        (tmp_path / name).write_text(text + "\n")
    assert room.free_bytes() == 350
    (tmp_path / "memory.max").write_text("max\n")
    assert room.free_bytes() != 350


def by_rule(net: Mlp, attachment) -> None:
    """One real step, which must be the rule's with the feedback of seed 0."""
    x, y = batch()
    net.zero_grad()
    cross_entropy(net(x), y).backward()
    matrix = torch.rand(3, 7, generator=feedback_generator(0)) * 2 - 1
    assert torch.equal(attachment.head.feedback_matrix, matrix)
    assert_gradients(net, mlp_rule(net, x, y, matrix, lambda e: e))


def test_a_model_that_runs_on_the_meta_device_first_trains_once_it_has_weights(monkeypatch):
    with torch.device("meta"):
        net = Mlp.__new__(Mlp)
        monkeypatch.setattr("tests.tinydfa.nets.fill", lambda *_: None)
        net.__init__()
    attachment = attach(net, "dfa")
    free(monkeypatch, 0)
    x, y = batch()
    cross_entropy(net(x.to("meta")), y.to("meta")).backward()
    assert net.hidden[0].weight.grad.shape == net.hidden[0].weight.shape
    monkeypatch.undo()
    net.to_empty(device="cpu")
    net.load_state_dict(Mlp().state_dict())
    by_rule(net, attachment)


def test_a_pass_on_the_meta_device_keeps_a_matrix_that_was_drawn():
    net = Mlp()
    attachment = attach(net, "dfa")
    by_rule(net, attachment)
    other = Mlp().to("meta")
    copied = attach(other, "dfa")
    copied.load_state_dict(attachment.state_dict())
    x, y = batch()
    cross_entropy(other(x.to("meta")), y.to("meta")).backward()
    assert torch.equal(copied.head.feedback_matrix, attachment.head.feedback_matrix)


def test_a_pass_of_fake_tensors_leaves_no_fake_matrix():
    """As memory estimates do it: the same shapes, and no numbers."""
    net = Mlp()
    attachment = attach(net, "dfa")
    x, y = batch()
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        cross_entropy(net(mode.from_tensor(x)), mode.from_tensor(y)).backward()
    for p in net.parameters():
        p.grad = None
    by_rule(net, attachment)


def test_the_first_pass_may_be_where_another_device_is_the_default():
    net = Mlp()
    attachment = attach(net, "dfa")
    x, y = batch()
    with torch.device("meta"):
        cross_entropy(net(x), y).backward()
    by_rule(net, attachment)


@pytest.mark.parametrize("method", ["fa", "brsf"])
def test_layer_wise_rules_want_weights_that_are_there(method):
    with pytest.raises(DFAError, match=r"(?s)hidden.0.weight.*meta device.*to_empty.*then attach"):
        attach(Mlp().to("meta"), method)


def test_a_matrix_that_fits_the_machine_and_not_its_gpu_is_refused_before_it_goes_there(monkeypatch):
    head = Head([DFALayer()])
    monkeypatch.setattr(room, "free_on", lambda device: 3 * 100 * 4 - 1)
    with pytest.raises(ShapeError, match=r"c = 3 and points of D = 100 numbers.*are free"):
        head._ready_matrix(Feedback(), 3, 100, torch.device("cuda"))
