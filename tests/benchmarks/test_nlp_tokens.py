"""The language model's limits are counts of products, and the plain model is the same network."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.nlp_tokens import Config, PlainTransformer, contestants, limit
from nlp.model.transformer import LanguageModel, cross_entropy
from nlp.presets import Preset
from tinydfa import attach

SIZES = {"layers": 3, "d_model": 32, "d_ff": 128, "heads": 4, "chunk": 16, "dropout": 0.0}
VOCABULARY = 50


def products(method, granularity):
    model = LanguageModel(VOCABULARY, Preset(method=method, granularity=granularity, **SIZES))
    attach(model, method)
    tokens = torch.randint(VOCABULARY, (2, 16))
    with FlopCounterMode(display=False) as counter:
        cross_entropy(model(tokens), tokens).backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("granularity", ["macro", "micro"])
def test_the_limit_is_the_count_of_products(granularity):
    """Of all products but attention's own, which the counter does not see on a CPU: a length of 0 leaves them out."""
    counted = products("dfa", granularity) / products("bp", granularity)
    assert counted == pytest.approx(limit(granularity, VOCABULARY, 32, 3, length=0))


def test_the_plain_model_has_as_many_parameters_as_ours():
    preset = Preset(method="bp", **SIZES)
    ours, plain = LanguageModel(VOCABULARY, preset), PlainTransformer(VOCABULARY, preset)
    assert sum(p.numel() for p in plain.parameters()) == sum(p.numel() for p in ours.parameters())


def test_every_contestant_steps():
    config = Config(batch=2, chunk=4, vocabulary=20, layers=1, d_model=16, compile=False)
    steps = contestants(config)
    assert set(steps) == {"bp", "macro", "micro", "plain"}
    for step in steps.values():
        step()
