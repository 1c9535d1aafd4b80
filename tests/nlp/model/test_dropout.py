"""Our dropout does on a CPU what torch's does."""

import pytest
import torch

from nlp.model.dropout import add_dropped, dropout, relu_dropout


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.9])
def test_a_share_is_dropped_and_the_mean_stays(rate):
    torch.manual_seed(0)
    x = torch.full((1000, 1001), 3.0)
    out = dropout(x, rate, training=True)
    assert (out == 0).float().mean().item() == pytest.approx(rate, abs=2e-3)
    assert out.mean().item() == pytest.approx(3.0, rel=0.02)
    torch.testing.assert_close(out[out != 0], torch.full_like(out[out != 0], 3 / (1 - rate)), rtol=1e-4, atol=0)


def test_neighbours_and_later_calls_are_dropped_independently():
    torch.manual_seed(0)
    first, second = (dropout(torch.ones(400_000), 0.5, training=True) > 0 for _ in range(2))
    for shift in (1, 2, 3, 4):
        assert (first[shift:] == first[:-shift]).float().mean().item() == pytest.approx(0.5, abs=5e-3)
    assert (first == second).float().mean().item() == pytest.approx(0.5, abs=5e-3)


def test_the_gradient_passes_where_the_number_did():
    x = torch.ones(50, requires_grad=True)
    out = dropout(x, 0.5, training=True)
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())


def test_the_seed_decides_what_is_dropped():
    outs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outs.append(dropout(torch.ones(100), 0.5, training=True))
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])


@pytest.mark.parametrize(("rate", "training"), [(0.0, True), (0.5, False)])
def test_without_a_rate_or_a_training_the_input_comes_back(rate, training):
    x = torch.ones(5)
    assert dropout(x, rate, training) is x


def test_the_type_stays():
    assert dropout(torch.ones(7, dtype=torch.bfloat16), 0.5, training=True).dtype is torch.bfloat16


def test_joined_with_relu_or_a_sum_it_stays_what_it_is():
    x, y = (torch.randn(40, requires_grad=True) for _ in range(2))
    joined = (lambda: relu_dropout(y, 0.4, True), lambda: add_dropped(x, y, 0.4, True))
    apart = (lambda: dropout(torch.relu(y), 0.4, True), lambda: x + dropout(y, 0.4, True))
    for ours, expected in zip(joined, apart, strict=True):
        found = []
        for function in (ours, expected):
            torch.manual_seed(0)
            out = function()
            found.append((out, *torch.autograd.grad((out**2).sum() + out.sum(), [x, y], allow_unused=True)))
        torch.testing.assert_close(found[0], found[1])
