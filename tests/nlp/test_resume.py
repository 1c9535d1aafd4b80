"""Runs that go on or are read again: they end like runs that were not interrupted, or are refused."""

import json
import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from harness.command import run_command
from harness.errors import NonFiniteLoss, UserError
from harness.options import parse
from harness.run import Run
from nlp import train as module
from nlp.config import Config
from nlp.model.transformer import LanguageModel
from nlp.saved import load_run
from nlp.text.vocabulary import CharVocabulary
from nlp.train import train
from nlp.trainer import Trainer
from tests.nlp.tiny import LETTERS, tiny_config, tiny_corpus
from tinydfa import Method


def run_in(folder, config, corpus, resume=False):
    """Train in a folder."""
    with Run("nlp", "tiny", config.settings(), folder, resume) as run:
        return train(config, run, corpus)


class KilledError(Exception):
    pass


RESUMED = {
    "plateau": {"dropout": 0.3, "alignment_every": 5},
    "noam": {"granularity": "micro", "method": Method.SDFA, "warmup": 10, "lr": 1.0},
    "onecycle": {"method": Method.FRSF, "tied": True},
    "radam": {"method": Method.DRTP},
}


@pytest.mark.parametrize(
    ("schedule", "killed_at"), [("plateau", 11), ("plateau", 34), ("noam", 34), ("onecycle", 11), ("radam", 34)]
)
def test_a_run_killed_inside_an_epoch_and_resumed_ends_like_an_uninterrupted_one(schedule, killed_at, tmp_path, corpus):
    options = RESUMED[schedule]  # 25 steps an epoch
    config = tiny_config(schedule=schedule, checkpoint_every=3, steps=40, validate_every=9, seed=5, **options)
    whole = train(config, corpus=corpus)

    with pytest.MonkeyPatch.context() as patch:
        step, steps = Trainer.step, iter(range(100))

        def killed(self, chunk):
            if next(steps) == killed_at:
                raise KilledError
            step(self, chunk)

        patch.setattr(Trainer, "step", killed)
        with pytest.raises(KilledError):
            run_in(tmp_path, config, corpus)
    torch.manual_seed(999)
    resumed = run_in(tmp_path, config, corpus, resume=True)

    assert resumed["curves"] == whole["curves"]
    for metrics in (resumed["metrics"], whole["metrics"]):
        del metrics["tokens_per_second"]
    assert resumed["metrics"] == whole["metrics"]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "val_loss" in line] == [9, 18, 27, 36, 40]


def test_a_finished_run_that_is_resumed_reports_the_same_again(tmp_path, corpus, capsys):
    first = run_in(tmp_path, tiny_config(), corpus)
    again = run_in(tmp_path, tiny_config(), corpus, resume=True)
    assert again["metrics"] == first["metrics"]
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["metrics"] == again["metrics"]


def test_a_run_is_loaded_with_its_best_weights_its_vocabulary_and_its_preset(tmp_path, corpus):
    config = tiny_config(granularity="micro", steps=16)
    result = run_in(tmp_path, config, corpus)
    model, vocabulary, preset = load_run(tmp_path)
    assert isinstance(model, LanguageModel)
    assert not model.training
    assert preset == config.preset
    assert vocabulary.fingerprint == corpus.vocabulary.fingerprint
    text = torch.from_numpy(corpus.test.astype("int64"))
    windows = [text[start : start + 9] for start in range(0, len(text) - 1, 8)]
    nats = sum(F.cross_entropy(model(w[None, :-1])[0], w[1:], reduction="sum").item() for w in windows)
    assert math.exp(nats / (len(text) - 1)) == pytest.approx(result["metrics"]["test_perplexity"], rel=1e-4)


def test_an_interrupted_run_is_loaded_with_the_weights_of_its_checkpoint(tmp_path, corpus, monkeypatch):
    monkeypatch.setattr(module, "validate", lambda *arguments: (_ for _ in ()).throw(KilledError))
    with pytest.raises(KilledError):
        run_in(tmp_path, tiny_config(checkpoint_every=6), corpus)
    model, _, _ = load_run(tmp_path)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["state"]
    assert state["progress"]["step"] == 6
    assert torch.equal(model.embedding.weight, state["model"]["embedding.weight"])


def test_another_vocabulary_than_the_checkpoints_is_refused(tmp_path, corpus):
    config = tiny_config(checkpoint_every=4)
    run_in(tmp_path, config, corpus)
    other = CharVocabulary(LETTERS[::-1])
    with pytest.raises(UserError, match=f"vocabulary {corpus.vocabulary.fingerprint}, and that of tiny is"):
        run_in(tmp_path, config, tiny_corpus(LETTERS[::-1]), resume=True)
    assert load_run(tmp_path)[1].fingerprint == corpus.vocabulary.fingerprint  # still its own
    (tmp_path / "vocabulary.json").write_text(other.to_json())
    with pytest.raises(UserError, match=f"and that in .*vocabulary.json is {other.fingerprint}"):
        load_run(tmp_path)


@pytest.mark.parametrize("content", ["[lr", "- 3", "method: dfa", "feedback: 3\nbetas: 4"])
def test_a_run_whose_configuration_is_damaged_is_refused(tmp_path, corpus, content):
    run_in(tmp_path, tiny_config(checkpoint_every=4), corpus)
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(UserError, match=r"config\.yaml (cannot|is not).*Give the folder of another run\."):
        load_run(tmp_path)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds no run of nlp\.train"):
        load_run(tmp_path)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path, corpus, monkeypatch):
    step = Trainer.step

    def broken(self, chunk):
        step(self, chunk)
        if self.progress.step == 7:
            self._summed += math.nan

    monkeypatch.setattr(Trainer, "step", broken)
    with pytest.raises(NonFiniteLoss, match="the loss is nan at step 8"):
        run_in(tmp_path, tiny_config(checkpoint_every=4), corpus)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["state"]
    assert state["progress"]["step"] == 4
    assert not (tmp_path / "result.json").exists()


@pytest.mark.parametrize(
    ("name", "old", "new", "cause"),
    [
        ("vocabulary.json", b'"lower"', b'"\xff"', r"vocabulary\.json cannot be read"),
        ("config.yaml", b"layers: 2", b"layers: 99999999999999999999", "is not of the model in .* layers"),
        ("config.yaml", b"d_model: 16", b"d_model: 8", "is not of the model in .*size mismatch"),
        ("config.yaml", b"d_model: 16", b"d_model: 9999999999999998", "is not of the model in"),
        ("config.yaml", b"chunk: 8", b"chunk: 99999999999999999999", "is not of the model in .*too big"),
    ],
)
def test_a_run_whose_files_do_not_fit_together_is_refused(tmp_path, corpus, name, old, new, cause):
    config = tiny_config(steps=2, validate_every=2, checkpoint_every=2)
    settings = config.settings() | {"device": "cpu"}
    with Run("nlp", "a", settings, tmp_path) as run:
        train(config, run, corpus)
    assert load_run(tmp_path)[1].size == corpus.vocabulary.size
    content = (tmp_path / name).read_bytes()
    assert old in content
    (tmp_path / name).write_bytes(content.replace(old, new))
    with pytest.raises(UserError, match=cause) as caught:
        load_run(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("schedule", ["noam", "adam", "plateau"])
def test_a_run_that_is_prolonged_ends_like_one_of_that_length(schedule, tmp_path, corpus):
    options = {"schedule": schedule, "validate_every": 4, "warmup": 10, "dropout": 0.2}
    short, longer, long = (tiny_config(steps=steps, out=tmp_path, **options) for steps in (8, 12, 20))
    run_command("nlp", short, lambda config: corpus, train)
    run_command("nlp", replace(longer, resume=True), lambda config: corpus, train)
    prolonged = run_command("nlp", replace(long, resume=True), lambda config: corpus, train)
    assert prolonged["curves"] == train(long, corpus=corpus)["curves"]
    assert prolonged["curves"]["step"] == [4, 8, 12, 16, 20]


def test_a_run_that_is_prolonged_from_a_step_between_validations_says_what_is_other(tmp_path, corpus, capsys):
    for steps, told in ((6, False), (10, True), (16, True), (18, False)):  # validated after 4, 6, 8, 10, 12, 16, 18
        config = tiny_config(steps=steps, out=tmp_path, schedule="adam", validate_every=4, resume=steps > 6)
        found = run_command("nlp", config, lambda config: corpus, train)
        assert ("Prolonged from step" in capsys.readouterr().out) == told
    assert found["curves"]["step"] == [4, 6, 8, 10, 12, 16, 18]


def test_one_cycle_of_the_learning_rate_is_not_prolonged(tmp_path, corpus):
    short, long = (tiny_config(steps=steps, out=tmp_path, schedule="onecycle") for steps in (8, 20))
    run_command("nlp", short, lambda config: corpus, train)
    with pytest.raises(UserError, match=r"of 8 steps, and onecycle raises and lowers .* cannot be prolonged to 20"):
        run_command("nlp", replace(long, resume=True), lambda config: corpus, train)


def test_the_configuration_of_a_run_gives_the_options_of_another(tmp_path, corpus):
    words = "--granularity micro --schedule adam --lr 1e-3 --no-lower --layers 2 --steps 5 --memory replay"
    config = parse(Config, [*words.split(), "--out", str(tmp_path)])
    with Run("nlp", config.name, config.settings(), tmp_path):
        pass
    again = parse(Config, ["--config", str(tmp_path / "config.yaml"), "--steps", "7"])
    assert again.preset == replace(config.preset, steps=7)
