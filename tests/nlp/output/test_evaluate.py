"""Perplexity: right where it is known in closed form, at any length, and independent of how the stream is cut."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from harness.errors import UserError
from harness.processes import Processes
from nlp.output import evaluate as module
from nlp.output.evaluate import evaluate

WORDS = 5  # of the vocabulary


class Bigram(nn.Module):
    """The probability of a token depends on the one before it alone: no chunk's border changes it."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(WORDS, WORDS)
        self.modes = []

    def forward(self, x):
        self.modes.append(self.training)
        return self.table(x)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Bigram()


def by_hand(model, stream):
    """Nats of all predictions, one after another in double precision."""
    table = model.table.weight.detach().double().numpy()
    total = 0.0
    for before, after in pairwise(stream):
        total += math.log(np.exp(table[before]).sum()) - table[before, after]
    return total


@pytest.mark.parametrize("length", [2, 3, 17, 64, 65, 66, 200, 257])
@pytest.mark.parametrize(("batch", "chunk"), [(1, 1), (3, 7), (4, 16), (64, 128)])
def test_a_bigram_model_scores_what_its_table_says(model, length, batch, chunk):
    stream = np.random.default_rng(length).integers(0, WORDS, length).astype(np.uint16)
    score = evaluate(model, stream, words=11, batch=batch, chunk=chunk, device="cpu")
    total = by_hand(model, stream)
    assert score.tokens == length - 1
    assert score.nats == pytest.approx(total / (length - 1), rel=1e-6)
    assert score.perplexity == pytest.approx(math.exp(total / (length - 1)), rel=1e-5)
    assert score.word_perplexity == pytest.approx(math.exp(total / 11), rel=1e-4)


def test_a_model_without_an_opinion_has_the_perplexity_of_the_vocabulary(model):
    nn.init.zeros_(model.table.weight)
    score = evaluate(model, np.arange(101) % WORDS, words=50, batch=3, chunk=7, device="cpu")
    assert score.perplexity == pytest.approx(WORDS, rel=1e-6)
    assert score.word_perplexity == pytest.approx(WORDS ** (100 / 50), rel=1e-6)


def test_a_hopeless_model_has_an_infinite_word_perplexity_and_no_error(model):
    model.table.weight.data.zero_()[0] = torch.tensor([0.0, 5000, 5000, 5000, 5000])
    score = evaluate(model, np.zeros(50, np.uint16), words=1, batch=2, chunk=8, device="cpu")
    assert score.nats == pytest.approx(5000, rel=1e-3)
    assert math.isinf(score.perplexity)
    assert math.isinf(score.word_perplexity)


@pytest.mark.parametrize("training", [True, False])
def test_a_model_is_scored_in_evaluation_mode_and_put_back(model, training):
    model.train(training)
    evaluate(model, np.zeros(50, np.uint16), 1, batch=2, chunk=8, device="cpu")
    assert not any(model.modes)
    assert model.training is training


def test_a_stream_without_a_prediction_is_an_error(model):
    with pytest.raises(UserError, match="the validation text has 1 tokens"):
        evaluate(model, np.zeros(1, np.uint16), 1, batch=2, chunk=8, device="cpu", name="the validation text")


def test_processes_score_shares_that_add_up(model, monkeypatch):
    stream = np.random.default_rng(0).integers(0, WORDS, 203).astype(np.uint16)
    parts = []
    monkeypatch.setattr(Processes, "total", lambda self, number: parts.append(number) or number)
    for rank in range(3):
        evaluate(model, stream, 1, batch=4, chunk=9, device="cpu", processes=Processes(rank, 3))
    assert sum(parts) == pytest.approx(by_hand(model, stream), rel=1e-6)


def test_bf16_rounds_the_forward_pass_and_not_the_loss(model):
    seen = []
    model.table = nn.Sequential(nn.Embedding(WORDS, 8), nn.Linear(8, WORDS))
    model.table.register_forward_hook(lambda _, __, logits: seen.append(logits.dtype))
    stream = np.arange(101) % WORDS
    scores = [
        evaluate(model, stream, 1, batch=2, chunk=8, device="cpu", precision=precision).nats
        for precision in ("fp32", "bf16")
    ]
    assert set(seen) == {torch.float32, torch.bfloat16}
    assert scores[0] == pytest.approx(scores[1], rel=1e-2)
    assert scores[0] != scores[1]


def test_no_chunk_is_scored_that_has_nothing_to_predict(model, monkeypatch):
    shapes = []
    monkeypatch.setattr(module, "chunks", lambda *a, **k: record(shapes, original(*a, **k)))
    evaluate(model, np.zeros(20, np.uint16), 1, batch=64, chunk=8, device="cpu")
    assert shapes == [(3, 8)]


original = module.chunks


def record(shapes, steps):
    for step in steps:
        shapes.append(tuple(step.x.shape))
        yield step
