"""Samples follow the model's probabilities, the seed and the settings."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from harness.errors import UserError
from nlp import sample
from nlp.output.generate import generate
from nlp.text.vocabulary import CharVocabulary
from tinydfa import Method


class Counting(nn.Module):
    """After a token comes the next of 10 with `confidence` logits more than any other; notes what it was shown."""

    def __init__(self, confidence=100.0):
        super().__init__()
        self.bonus = nn.Parameter(torch.tensor(confidence))
        self.shown, self.modes = [], []

    def forward(self, x):
        self.shown.append(x.tolist())
        self.modes.append(self.training)
        return self.bonus * nn.functional.one_hot((x + 1) % 10, 10).float()


def test_a_sure_model_writes_what_it_is_sure_of():
    ids = generate(Counting(), [7, 8], 5, context=16, generator=torch.Generator().manual_seed(0))
    assert ids.tolist() == [7, 8, 9, 0, 1, 2, 3]
    assert ids.dtype == np.int64


@pytest.mark.parametrize("settings", [{"temperature": 0}, {"top_k": 1}, {"temperature": 1e-30}])
def test_the_coldest_and_the_narrowest_choice_is_the_likeliest_token(settings):
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        assert generate(Counting(0.1), [0], 9, context=4, generator=generator, **settings).tolist() == list(range(10))


def test_the_model_sees_the_last_tokens_of_its_context_only():
    model = Counting()
    generate(model, [1, 2, 3, 4, 5], 2, context=3)
    assert model.shown == [[[3, 4, 5]], [[4, 5, 6]]]


def test_draws_follow_the_seed_and_leave_the_global_generator_alone():
    model, before = Counting(1.0), torch.get_rng_state()
    drawn = [
        generate(model, [0], 30, context=8, generator=torch.Generator().manual_seed(seed)).tolist()
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, None), (0.5, None), (2.0, 4)])
def test_tokens_are_as_frequent_as_their_probabilities(temperature, top_k):
    logits = torch.log(torch.tensor([0.4, 0.25, 0.15, 0.1, 0.06, 0.04]))

    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.logits = nn.Parameter(logits)

        def forward(self, x):
            return self.logits.expand(*x.shape, -1)

    generator = torch.Generator().manual_seed(0)
    ids = generate(Fixed(), [0], 4000, temperature=temperature, top_k=top_k, generator=generator, context=1)
    expected = logits.exp().numpy() ** (1 / temperature)
    expected[top_k or 6 :] = 0
    expected /= expected.sum()
    found = np.bincount(ids[1:], minlength=6) / 4000
    assert np.abs(found - expected).max() < 4 * np.sqrt(0.25 / 4000)
    assert not found[expected == 0].any()


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_model_is_put_back(training):
    model = Counting().train(training)
    generate(model, [0], 2, context=4)
    assert model.modes == [False, False]
    assert model.training is training


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt_ids": []}, "prompt is empty"),
        ({"length": -1}, "--length -1"),
        ({"temperature": -0.5}, "--temperature -0.5"),
        ({"temperature": float("nan")}, "--temperature nan"),
        ({"top_k": 0}, "--top-k 0"),
        ({"top_k": 3, "temperature": 0.0}, r"--temperature 0 .* leaves --top-k without effect"),
    ],
)
def test_settings_without_a_meaning_are_errors(settings, message):
    with pytest.raises(UserError, match=message):
        generate(Counting(), **({"prompt_ids": [1], "length": 3, "context": 4} | settings))


def test_the_command_puts_what_runs_write_beside_each_other(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("COLUMNS", "80")
    letters = CharVocabulary("abcdefghi")  # token n + 1 follows token n, and 0, the unknown, follows 9

    def load_run(folder):
        model = Counting() if folder.name == "sure" else Counting(-100.0)
        return model, letters, SimpleNamespace(chunk=4, method=Method.DFA, granularity="macro")

    monkeypatch.setattr(sample, "load_run", load_run)
    folders = (tmp_path / "sure", tmp_path / "other")
    sample.main(sample.Config(runs=folders, prompt="[b]c", length=5, temperature=0, device="cpu"))
    printed = capsys.readouterr().out
    [row] = [line for line in printed.splitlines() if "b\ufffdc" in line]
    assert "\ufffdb\ufffdcdefgh " in row
    assert row.count("\ufffdb\ufffdc") == 2
    assert "sure: dfa, macro" in printed
    assert "other: dfa, macro" in printed


def test_the_command_needs_a_run():
    with pytest.raises(UserError, match="no run to load"):
        sample.Config(runs=())
