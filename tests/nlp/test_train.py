"""Training: what it learns, what it reports, and that an interrupted run ends like one that was not interrupted."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from harness.command import command
from harness.errors import UserError
from harness.options import make, parse
from nlp import train as module
from nlp.config import Config
from nlp.output.evaluate import Score
from nlp.train import load, train
from nlp.trainer import Trainer
from tests.nlp.tiny import tiny_config
from tinydfa import Method


def perplexity(corpus, method, **options):
    config = tiny_config(method=method, schedule="adam", dropout=0.0, steps=200, validate_every=50, **options)
    return train(config, corpus=corpus)["metrics"]["test_perplexity"]


def test_backpropagation_learns_and_dfa_learns_more_than_shallow(corpus):
    bp, dfa, shallow = (perplexity(corpus, method) for method in (Method.BP, Method.DFA, Method.SHALLOW))
    assert 2.0 < bp < 2.6  # two successors: 2 is the best possible
    assert dfa < 3.0
    assert shallow > dfa + 0.05


def test_the_same_seed_gives_the_same_run_and_another_seed_another(corpus):
    first, again, other = (train(tiny_config(seed=seed), corpus=corpus)["curves"] for seed in (0, 0, 1))
    assert first == again
    assert first != other


@pytest.mark.parametrize("granularity", ["macro", "micro"])
def test_training_without_stored_graphs_gives_the_same_curves(corpus, granularity):
    options = {"method": "dfa", "granularity": granularity, "dropout": 0.1, "steps": 10}
    expected, *others = (
        train(tiny_config(memory=memory, **options), corpus=corpus)["curves"] for memory in (None, "replay", "8K")
    )
    assert others == [expected, expected]


def test_curves_have_an_entry_a_validation_and_the_last_step_is_validated(corpus):
    result = train(tiny_config(steps=20), corpus=corpus)
    assert result["curves"]["step"] == [8, 16, 20]
    assert {len(result["curves"][name]) for name in ("train_loss", "val_loss")} == {3}
    metrics = result["metrics"]
    assert metrics["steps"] == 20
    assert metrics["val_perplexity"] == pytest.approx(math.exp(min(result["curves"]["val_loss"])))
    assert metrics["val_word_perplexity"] == pytest.approx(math.exp(239 * min(result["curves"]["val_loss"]) / 60))
    assert metrics["tokens_per_second"] > 0


def test_without_validate_every_epochs_are_validated(corpus):
    result = train(tiny_config(epochs=2, steps=None, validate_every=None, preset="macro"), corpus=corpus)
    assert result["curves"]["step"] == [25, 50]  # 1199 predictions in windows of 8, six at a time


def test_the_training_loss_is_the_mean_over_tokens_since_the_last_validation(corpus, monkeypatch):
    losses, step = [], Trainer.step

    def noted(self, chunk):
        with torch.no_grad():
            logits = self.model(chunk.x)
        loss = F.cross_entropy(logits.flatten(0, 1), chunk.y.flatten(), ignore_index=-100, reduction="none")
        losses.append((float(loss.sum()), int((chunk.y != -100).sum())))
        step(self, chunk)

    monkeypatch.setattr(Trainer, "step", noted)
    curve = train(tiny_config(dropout=0.0, steps=32), corpus=corpus)["curves"]["train_loss"]
    assert losses[24][1] < 48  # the last of the epoch is not full
    for place, mean in enumerate(curve):
        part = losses[8 * place : 8 * place + 8]
        assert mean == pytest.approx(sum(loss for loss, _ in part) / sum(tokens for _, tokens in part), rel=1e-5)


def test_gradients_are_clipped_together(corpus):
    config = tiny_config(clip_norm=0.01, dropout=0.0)
    trainer = Trainer(config, corpus, torch.device("cpu"))
    trainer.step(next(trainer.remaining()))
    norm = torch.stack([p.grad.norm() for p in trainer.model.parameters()]).norm()
    assert norm.item() == pytest.approx(0.01, rel=1e-3)


def scripted(monkeypatch, losses):
    """Let the validation loss be what the script says; notes what was scored with which weights."""
    seen, script = [], iter(losses)

    def scores(model, tokens, words, **options):
        seen.append((tokens, {name: value.clone() for name, value in model.state_dict().items()}))
        nats = next(script, 0.7)
        return Score(nats, math.exp(nats), math.exp(2 * nats), len(tokens) - 1)

    monkeypatch.setattr(module, "evaluate", scores)
    return seen


@pytest.mark.parametrize(
    ("losses", "patience", "steps", "best"),
    [
        ([2.0, 1.5, 1.6, 1.7, 1.0], 2, 16, 8),  # the patience runs out
        ([2.0, 1.5, 1.6], 5, 12, 8),  # the steps run out, and the best weights come back all the same
        ([2.0, 1.5, 1.5, 1.5], 2, 16, 8),  # as good is not better
        ([2.0, 1.6, 1.5], 5, 12, 12),
    ],
)
def test_the_best_weights_are_tested_once(monkeypatch, corpus, losses, patience, steps, best):
    seen = scripted(monkeypatch, losses)
    config = tiny_config(steps=4 * len(losses), validate_every=4, patience=patience)
    metrics = train(config, corpus=corpus)["metrics"]
    assert (metrics["steps"], metrics["best_step"]) == (steps, best)
    assert metrics["val_perplexity"] == math.exp(losses[best // 4 - 1])
    assert [tokens is corpus.test for tokens, _ in seen] == [False] * (steps // 4) + [True]
    for name, value in seen[-1][1].items():
        assert torch.equal(value, seen[best // 4 - 1][1][name])


def test_the_schedule_learns_of_every_validation(monkeypatch, corpus):
    scripted(monkeypatch, [2.0, 2.1, 2.2, 2.3])
    rates = []
    step = Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda self, chunk: (rates.append(self.schedule.lr), step(self, chunk)))
    train(tiny_config(steps=16, validate_every=4, schedule="plateau", lr=0.1), corpus=corpus)
    assert rates == pytest.approx([0.1] * 12 + [0.02] * 4)


def test_alignment_is_one_for_backpropagation_and_measuring_it_changes_nothing(corpus):
    config = tiny_config(method=Method.BP, alignment_every=10)
    result = train(config, corpus=corpus)
    curves = result["curves"]
    assert curves["alignment_step"] == [10, 20]
    assert curves["alignment blocks.0.point"] == pytest.approx([1.0, 1.0])
    assert result["metrics"]["alignment blocks.1.point"] == pytest.approx(1.0)
    assert curves["val_loss"] == train(replace(config, alignment_every=None), corpus=corpus)["curves"]["val_loss"]


@pytest.mark.parametrize("method", [Method.SDFA, Method.TDFA, Method.DRTP, Method.FA, Method.USF, Method.BRSF])
def test_other_methods_train_too(method, corpus):
    curve = train(tiny_config(method=method, schedule="adam"), corpus=corpus)["curves"]["val_loss"]
    assert curve[-1] < curve[0]


@pytest.mark.parametrize("options", [{"precision": "bf16"}, {"compile": True}])
def test_options_leave_the_loss_nearly_as_it_is(options, corpus, monkeypatch):
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda net: compiled(net, backend="aot_eager", fullgraph=True))
    usual, other = (train(tiny_config(layers=1, dropout=0.0, **chosen), corpus=corpus) for chosen in ({}, options))
    usual, other = (result["curves"]["val_loss"] for result in (usual, other))
    assert other == pytest.approx(usual, rel=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "doccs"], "--dataset doccs: no such corpus"),
        (["--preset", "macro_xyz"], "--preset macro_xyz: no such preset"),
        (["--method", "drtp", "--error-at", "hidden"], "Use --error-at logits"),
        (["--epochs", "0"], "epochs is 0; give at least 1"),
        (["--steps", "0"], "steps is 0; give at least 1"),
        (["--schedule", "cosine"], "cosine"),
        (["--vocabulary", "char", "--chunk", "900000"], "a chunk of 900000 needs 900,001"),
        (["--device", "tpu"], "--device tpu"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TINYDFA_CACHE", str(tmp_path / "cache"))
    with pytest.raises(SystemExit) as leaving:
        command("nlp", Config, load, train, argv=arguments)
    complaint = capsys.readouterr().err
    assert leaving.value.code == 2
    assert message in complaint
    assert complaint.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--attention fixed --heads 4", "--heads has no effect with --attention fixed"),
        ("--vocabulary char --vocabulary-size 50", "--vocabulary-size has no effect with --vocabulary char"),
        ("--schedule adam --warmup 5", "--warmup has no effect with --schedule adam"),
        ("--preset small_macro_adam --warmup 5", "--warmup has no effect with --schedule adam"),
        ("--schedule adam --plateau-factor 0.5", "--plateau-factor has no effect with --schedule adam"),
        ("--error-at logits --last-block error", "--last-block has no effect with --error-at logits"),
        ("--method drtp --last-block error", "--last-block has no effect with --error-at logits"),
    ],
)
def test_an_option_that_another_leaves_without_effect_is_refused(words, message):
    with pytest.raises(UserError, match=f"{message}.* Leave one of them out"):
        parse(Config, words.split())


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        ("--attention dense --heads 8", {"attention": "dense", "heads": 8}),
        ("--vocabulary-size 500", {"vocabulary_size": 500}),
        ("--schedule noam --warmup 5", {"schedule": "noam", "warmup": 5}),
        ("--last-block error", {"last_block": "error"}),
        ("--attention fixed", {"attention": "fixed"}),
        ("--error-at logits", {"error_at": "logits"}),
        ("--error-at norm --last-block error", {"error_at": "norm", "last_block": "error"}),
        ("--no-lower --tied --betas 0.8 0.9", {"lower": False, "tied": True, "betas": (0.8, 0.9)}),
    ],
)
def test_options_that_have_an_effect_are_not_refused(words, settings):
    preset = parse(Config, words.split()).preset
    assert {name: getattr(preset, name) for name in settings} == settings


@pytest.mark.parametrize(
    ("options", "option"), [({"dataset": "docs"}, "--dataset"), ({"data_dir": Path(".")}, "--data-dir")]
)
def test_a_folder_of_texts_beside_another_text_is_refused(options, option):
    with pytest.raises(UserError, match=f"{option} and --text-dir name two texts"):
        make(Config, text_dir=Path("texts"), **options)
