"""Attention that does not compare tokens, against loops over positions."""

import pytest
import torch
from torch.nn import functional as F

from nlp.model.attention import DenseSynthesizer, FixedAttention, RandomSynthesizer, StandardAttention, fixed_patterns

B, L, D, H = 2, 7, 8, 2


@pytest.fixture
def x():
    return torch.randn(B, 5, D, generator=torch.Generator().manual_seed(0))


def test_fixed_patterns_are_those_of_the_release_adapted_to_language_models():
    patterns = fixed_patterns(L)
    for i in range(L):
        past = list(range(i - 2)) or [0]
        cubes = [(j + 1) ** 3 for j in past]
        assert patterns[0, i].nonzero().flatten().tolist() == [i]
        assert patterns[1, i].nonzero().flatten().tolist() == [max(i - 1, 0)]
        assert patterns[2, i, past].tolist() == pytest.approx([1 / len(past)] * len(past))
        assert patterns[3, i, past].tolist() == pytest.approx([cube / sum(cubes) for cube in cubes])
    torch.testing.assert_close(patterns.sum(dim=2), torch.ones(4, L))


def test_fixed_attention_mixes_a_quarter_of_the_values_by_each_pattern(x):
    attention = FixedAttention(D, L)
    out, v = attention(x), attention.value(x)
    torch.testing.assert_close(out[:, :, :2], v[:, :, :2])
    torch.testing.assert_close(out[:, 1:, 2:4], v[:, :-1, 2:4])
    torch.testing.assert_close(out[:, 4, 4:6], v[:, :2, 4:6].mean(dim=1))
    torch.testing.assert_close(out[:, 4, 6:], (v[:, 0, 6:] + 8 * v[:, 1, 6:]) / 9)


def rows_of_scores(attention, scores, values):
    """Softmax over j <= i of scores ``[H, T, T]`` of one text, head by head and position by position."""
    heads = []
    for h in range(H):
        v = values[:, h * D // H : (h + 1) * D // H]
        heads.append(torch.stack([scores[h, i, : i + 1].softmax(dim=0) @ v[: i + 1] for i in range(len(v))]))
    return attention.out(torch.cat(heads, dim=1))


def test_a_random_synthesizer_mixes_by_its_parameters(x):
    attention = RandomSynthesizer(D, H, 0.0, L)
    for text, out in zip(x, attention(x), strict=True):
        torch.testing.assert_close(out, rows_of_scores(attention, attention.scores, attention.value(text)))


def test_a_dense_synthesizer_computes_each_row_of_scores_from_its_own_token(x):
    attention = DenseSynthesizer(D, H, 0.0, L)
    for text, out in zip(x, attention(x), strict=True):
        u, v = attention.inputs(text).split(D, dim=1)
        scores = []
        for h in range(H):
            hidden = F.relu(u[:, h * D // H : (h + 1) * D // H] @ attention.hidden[h] + attention.hidden_bias[h])
            scores.append(hidden @ attention.scores[h] + attention.scores_bias[h])
        torch.testing.assert_close(out, rows_of_scores(attention, torch.stack(scores), v))


@pytest.mark.parametrize("attention", [StandardAttention(D, H, 0.5), RandomSynthesizer(D, H, 0.5, L)])
def test_weights_are_dropped_while_training_alone(attention, x):
    assert not torch.equal(attention(x), attention(x))
    attention.eval()
    assert torch.equal(attention(x), attention(x))


def test_the_way_a_cpu_goes_with_dropout_differs_by_the_dropout_alone(x, monkeypatch):
    attention = StandardAttention(D, H, 0.5)
    monkeypatch.setattr("nlp.model.attention.dropped", lambda weights, rate, training: weights)
    gradients = []
    for trains in (True, False):
        inputs = x.clone().requires_grad_()
        out = attention.train(trains)(inputs)
        gradients.append(torch.autograd.grad(out.square().sum(), [inputs, *attention.parameters()]))
    for ours, torchs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, torchs)


@pytest.mark.parametrize("kind", [DenseSynthesizer, RandomSynthesizer])
def test_every_parameter_of_a_synthesizer_learns(kind, x):
    attention = kind(D, H, 0.0, 5)
    attention(x).square().sum().backward()
    for name, parameter in attention.named_parameters():
        assert parameter.grad.abs().max() > 0, name
