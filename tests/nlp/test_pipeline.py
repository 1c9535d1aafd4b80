"""A language model trained in stages ends as one trained in one process."""

import contextlib
import json
import os

import pytest

from harness.errors import UserError
from harness.run import Run
from nlp.pipeline import PipelinedTraining
from nlp.train import train
from nlp.trainer import Trainer
from tests.float64 import float64
from tests.nlp.tiny import tiny_config, tiny_corpus
from tests.processes import in_two_processes

SHAPE = {"layers": 3, "batch": 8, "dropout": 0.0, "steps": 12, "validate_every": 6}
CASES = {
    "macro": {"method": "dfa"},
    "micro, with the error at the last block": {"method": "dfa", "granularity": "micro", "last_block": "error"},
    "a point after the embedding": {"method": "sdfa", "points_embedding": True},
    "overlapped": {"method": "dfa", "clip_norm": float("inf"), "overlap": True},
    "targets": {"method": "drtp", "error_at": "logits", "clip_norm": float("inf"), "overlap": True},
    "logits": {"method": "dfa", "error_at": "logits", "microbatches": 8},
    "below the last norm": {"method": "fitted", "error_at": "norm", "granularity": "micro"},
    "below the last norm, replayed": {"method": "dfa", "error_at": "norm", "memory": "replay"},
    "backpropagation by 1F1B": {"method": "bp"},
    "replayed": {"method": "dfa", "memory": "replay"},
    "feedback that learns": {"method": "dkp"},
    "fitted feedback": {"method": "fitted"},
    "feedback from noise": {"method": "fdfa", "clip_norm": float("inf"), "overlap": True},
}
RESUMED = CASES["feedback that learns"] | {"checkpoint_every": 5}


def config_of(case, stages=None):
    options = dict(case)
    if stages is None:
        options.pop("overlap", None)
        options.pop("microbatches", None)
    return tiny_config(**SHAPE | options, pipeline=stages)


def interrupted(kind, config, corpus, folder):
    """Train until step 8 would begin; the checkpoint is of step 5."""
    step = kind.step

    def stop_before_step_8(self, chunk):
        if self.progress.step == 7:
            raise InterruptedError
        step(self, chunk)

    settings = config.settings()
    kind.step = stop_before_step_8
    try:
        with contextlib.suppress(InterruptedError), Run("nlp", "tiny", settings, folder) as run:
            train(config, run, corpus)
    finally:
        kind.step = step


def resumed(config, corpus, folder):
    settings = config.settings()
    with Run("nlp", "tiny", settings, folder, resume=True, may_change=config.may_change) as run:
        return train(config, run, corpus)


def train_in_stages(rank, folder):
    os.environ["WORLD_SIZE"] = "2"  # as torchrun would say
    with float64():
        found = {name: train(config_of(case, 2), corpus=tiny_corpus()) for name, case in CASES.items()}
        config, corpus = config_of(RESUMED, 2), tiny_corpus()
        interrupted(PipelinedTraining, config, corpus, folder / "run")
        found["resumed"] = resumed(config, corpus, folder / "run")
        interrupted(PipelinedTraining, config, corpus, folder / "to one")
        found["resumed from one"] = resumed(config, corpus, folder / "of one")
    if rank == 0:
        curves = {name: result["curves"] | result["metrics"] for name, result in found.items()}
        (folder / "found.json").write_text(json.dumps(curves))


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stages")
    with float64():
        interrupted(Trainer, config_of(RESUMED), tiny_corpus(), folder / "of one")
    in_two_processes(train_in_stages, folder)
    found = json.loads((folder / "found.json").read_text())
    with float64():
        one = resumed(config_of(RESUMED), tiny_corpus(), folder / "to one")
    return found | {"resumed by one": one["curves"] | one["metrics"]}


@pytest.mark.parametrize("name", CASES)
def test_curves_are_those_of_one_process(staged, name):
    with float64():
        one = train(config_of(CASES[name]), corpus=tiny_corpus())
    for key in ("train_loss", "val_loss"):
        assert staged[name][key] == pytest.approx(one["curves"][key], rel=1e-9)
    assert staged[name]["test_perplexity"] == pytest.approx(one["metrics"]["test_perplexity"], rel=1e-9)


@pytest.mark.parametrize("how", ["resumed", "resumed by one", "resumed from one"])
def test_an_interrupted_run_ends_with_the_same_numbers(staged, how):
    whole = staged["feedback that learns"]
    for key in ("train_loss", "val_loss", "step"):
        assert staged[how][key] == pytest.approx(whole[key], rel=1e-10)
    assert staged[how]["test_perplexity"] == pytest.approx(whole["test_perplexity"], rel=1e-10)


def test_other_stages_are_no_other_run_and_other_processes_alone_are(tmp_path):
    config, corpus = config_of(RESUMED), tiny_corpus()
    interrupted(Trainer, config, corpus, tmp_path / "run")
    with pytest.raises(UserError, match=r"another configuration \(lr: 0.01 -> 0.02\)"):
        resumed(config_of(RESUMED | {"lr": 0.02}), corpus, tmp_path / "run")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "--pipeline 2 trains in as many processes, and 1 started"),
        ({"layers": 1}, "cannot share 1 blocks"),
        ({"microbatches": 5}, "--batch 8 cannot be cut into 5"),
        ({"tied": True}, "--tied does not go with --pipeline"),
        ({"compile": True}, "--compile does not go"),
        ({"alignment_every": 3}, "--alignment-every does not go"),
        ({"method": "fa"}, "trains by rules that broadcast the error"),
        ({"method": "shallow"}, "trains by rules that broadcast the error"),
        ({"memory": "64M"}, "--memory 64M does not go with --pipeline"),
        ({"method": "bp", "overlap": True}, "--overlap has no effect under bp"),
        ({"overlap": True}, "Give --clip-norm inf"),
    ],
)
def test_what_cannot_be_trained_in_stages_is_refused(options, message, monkeypatch):
    if options:
        monkeypatch.setenv("WORLD_SIZE", "2")
    config = tiny_config(**SHAPE | {"method": "dfa"} | options, pipeline=2)
    with pytest.raises(UserError, match=message):
        config.check_pipeline()


def test_options_of_a_pipeline_without_one_are_refused():
    with pytest.raises(UserError, match="--overlap has no effect without --pipeline"):
        tiny_config(overlap=True)
