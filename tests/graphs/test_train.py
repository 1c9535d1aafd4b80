"""Training: what it learns, and that an interrupted run ends like one that was not interrupted."""

import json
import math
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from graphs import alignment, autoencoder, embed, measurement, train
from graphs.config import ALONE
from graphs.models.networks import build_model
from graphs.presets import PRESETS, find_preset
from graphs.train import Config, History
from harness.command import command, run_command
from harness.errors import UserError
from harness.options import make
from harness.run import Run
from tinydfa import Method

ROOT = Path(__file__).resolve().parents[2]


def accuracy(method, epochs=100, **options):
    return train.train(make(Config, method=method, epochs=epochs, **options))["metrics"]["test_accuracy"]


def test_backpropagation_learns_and_dfa_learns_far_more_than_shallow():
    bp, dfa, shallow = (accuracy(method) for method in (Method.BP, Method.DFA, Method.SHALLOW))
    assert bp > 0.75
    assert dfa > 0.70
    assert shallow < dfa - 0.25


@pytest.mark.parametrize("method", [Method.SDFA, Method.TDFA, Method.DRTP])
def test_other_direct_feedback_beats_shallow(method):
    assert accuracy(method) > accuracy(Method.SHALLOW) + 0.15


@pytest.mark.data
def test_cora_and_citeseer_come_out_as_known(data_dir):
    for dataset, bp, dfa in (("cora", 0.79, 0.75), ("citeseer", 0.68, 0.65)):
        assert accuracy(Method.BP, 250, dataset=dataset, data_dir=data_dir) > bp
        assert accuracy(Method.DFA, 250, dataset=dataset, data_dir=data_dir) > dfa


def test_the_same_seed_gives_the_same_run_and_another_seed_another():
    first, again, other = (train.train(make(Config, epochs=5, seed=seed))["curves"]["train_loss"] for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_reported_is_the_test_accuracy_at_the_first_best_validation_epoch():
    history = History(train_loss=[3, 2, 1, 0], val_accuracy=[0.1, 0.5, 0.5, 0.4], test_accuracy=[0.9, 0.6, 0.7, 0.8])
    metrics = history.metrics()
    assert (metrics["test_accuracy"], metrics["best_epoch"], metrics["final_test_accuracy"]) == (0.6, 2, 0.8)


class KilledError(Exception):
    pass


@pytest.mark.parametrize("model", ["gcn", "gat", "spline"])
def test_a_resumed_run_ends_like_an_uninterrupted_one(model, tmp_path, monkeypatch, capsys):
    config = make(Config, model=model, epochs=9, checkpoint_every=4, seed=5)
    whole = train.train(config)

    steps = iter(range(100))
    train_epoch = train.train_epoch

    def killed_in_the_seventh_epoch(*arguments):
        if next(steps) == 6:
            raise KilledError
        return train_epoch(*arguments)

    monkeypatch.setattr(train, "train_epoch", killed_in_the_seventh_epoch)
    with pytest.raises(KilledError):
        run_command("graphs", replace(config, out=tmp_path), train.load, train.train)
    monkeypatch.setattr(train, "train_epoch", train_epoch)
    torch.manual_seed(999)
    run_command("graphs", replace(config, out=tmp_path, resume=True), train.load, train.train)

    resumed = json.loads((tmp_path / "result.json").read_text())
    assert resumed["metrics"] == whole["metrics"]
    assert resumed["curves"] == whole["curves"]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 10))
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["metrics"] == resumed["metrics"]


def test_a_resumed_auto_encoder_ends_like_an_uninterrupted_one(tmp_path, monkeypatch):
    config = make(autoencoder.Config, epochs=5, checkpoint_every=2)
    whole = autoencoder.train(config)
    settings = config.settings()
    half = replace(config, preset=replace(config.preset, epochs=4))
    with Run("graphs", "half", settings, tmp_path) as run:
        monkeypatch.setattr(Run, "finish", lambda self, **result: result)
        autoencoder.train(half, run)
    monkeypatch.undo()
    with Run("graphs", "half", settings, tmp_path, resume=True) as run:
        resumed = autoencoder.train(config, run)
    assert resumed["metrics"] == whole["metrics"]


def test_alignment_grows_while_dfa_trains_and_is_one_under_backpropagation():
    metrics = alignment.measure(make(alignment.Config, epochs=60))["metrics"]
    assert metrics["alignment"] > metrics["alignment_start"] + 0.1 > 0.1
    backprop = alignment.measure(make(alignment.Config, method=Method.BP, epochs=10))["metrics"]
    assert backprop["alignment"] == pytest.approx(1.0, abs=1e-4)


def test_alignment_measurements_do_not_change_the_training():
    config = make(alignment.Config, model="gat", epochs=12)
    assert alignment.measure(config)["metrics"]["test_accuracy"] == train.train(config)["metrics"]["test_accuracy"]


def test_alignment_of_dna_uses_its_own_learning_rate():
    assert make(alignment.Config, model="dna").preset == PRESETS["dna_alignment"]
    assert PRESETS["dna_alignment"].lr == 0.005
    assert PRESETS["dna_dfa"].lr == 0.01


def test_where_a_preset_takes_the_error_matters_also_where_alignment_is_measured_and_a_map_is_drawn():
    presets = ("gcn_dfa", "gcn_dfa_spread")
    plain, spread = (alignment.measure(make(alignment.Config, preset=preset, epochs=10)) for preset in presets)
    assert spread["metrics"]["alignment"] != plain["metrics"]["alignment"]
    plain, spread = (embed.hidden_activations(make(Config, preset=preset, epochs=10))[0] for preset in presets)
    assert not torch.equal(plain, spread)


def test_methods_without_published_settings_use_those_of_dfa():
    assert find_preset(model="gat", method=Method.SDFA) == replace(PRESETS["gat_dfa"], method=Method.SDFA)
    assert find_preset(model="gat", method=Method.BP) == PRESETS["gat_bp"]


def test_layer_wise_methods_are_refused_with_the_reason():
    with pytest.raises(UserError, match=r"--method fa .*graph convolutions are neither"):
        make(Config, method=Method.FA)


@pytest.mark.parametrize(
    "changes", [{"lr": 0.0}, {"lr": math.inf}, {"dropout": 1.0}, {"epochs": 0}, {"weight_decay": -1.0}]
)
def test_an_impossible_preset_is_refused(changes):
    with pytest.raises(UserError, match=next(iter(changes))):
        replace(PRESETS["gcn_dfa"], **changes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "corra"], "--dataset corra: no such data set"),
        (["--model", "mlp"], "--model mlp: no such model"),
        (["--model", ""], "--model is empty"),
        (["--preset", ""], "--preset is empty"),
        (["--preset", "gcn_xyz"], "--preset gcn_xyz: no such preset"),
        (["--preset", "gcn_bp", "--method", "dfa"], "--preset gcn_bp trains by bp and --method says dfa"),
        (["--preset", "gcn_bp", "--model", "gat"], "--preset gcn_bp is about gcn and --model says gat"),
        (["--epochs", "0"], "epochs is 0; it must be above 0"),
        (["--alignment-every", "0"], "--alignment-every 0: give at least 1"),
        (["--attention-dropout", "0.5"], "--attention-dropout has no effect with --model gcn, only with gat or dna"),
        (["--dataset", "cora", "--data-dir", "/no/such/folder"], "/no/such/folder: no such folder"),
        (["--method", "fa"], "--method fa replaces the weights"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as leaving:
        command("graphs", Config, train.load, train.train, alone=ALONE, argv=arguments)
    complaint = capsys.readouterr().err
    assert leaving.value.code == 2
    assert message in complaint
    assert complaint.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_the_command_runs_and_prints_its_result_last(tmp_path):
    command = [sys.executable, "-m", "graphs.train", "--epochs", "2", "--out", str(tmp_path / "run")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    printed = json.loads(done.stdout.splitlines()[-1])
    assert (printed["model"], printed["dataset"], printed["method"]) == ("gcn", "synthetic", "dfa")
    assert printed["metrics"] == json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]


@pytest.mark.parametrize("config_class", [Config, alignment.Config])
@pytest.mark.parametrize("options", [[], ["--model", "dna"]])
def test_measuring_alignment_of_drtp_is_refused_before_a_folder_is_made(config_class, options, tmp_path, capsys):
    words = ["--method", "drtp", "--alignment-every", "5", "--out", str(tmp_path / "run"), *options]
    with pytest.raises(SystemExit, match="2"):
        command("graphs", config_class, train.load, train.train, alone=ALONE, argv=words)
    assert "--method drtp reads the classes of labelled nodes" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_training_that_measures_alignment_resumes_to_the_same_curves(tmp_path):
    config = make(Config, epochs=6, checkpoint_every=3, alignment_every=2, out=tmp_path / "run")
    whole = train.train(config)
    assert whole["curves"]["epoch"] == [2, 4, 6]
    run_command("graphs", replace(config, preset=replace(config.preset, epochs=4)), train.load, train.train)
    found = run_command("graphs", replace(config, resume=True), train.load, train.train)
    assert (found["curves"], found["metrics"]) == (whole["curves"], whole["metrics"])


def test_a_training_is_prolonged_to_what_it_had_been_at_once_and_not_shortened(tmp_path):
    config = make(Config, model="gat", epochs=7, checkpoint_every=2, out=tmp_path / "run")
    whole = train.train(config)
    short = replace(config, preset=replace(config.preset, epochs=5))
    run_command("graphs", short, train.load, train.train)
    longer = run_command("graphs", replace(config, resume=True), train.load, train.train)
    assert (longer["curves"], longer["metrics"]) == (whole["curves"], whole["metrics"])
    with pytest.raises(UserError, match=r"another configuration \(epochs: 7 -> 5\)"):
        run_command("graphs", replace(short, resume=True), train.load, train.train)


def test_a_training_that_was_prolonged_is_prolonged_again_to_what_it_had_been_at_once(tmp_path):
    config = make(Config, epochs=8, checkpoint_every=2, alignment_every=2, out=tmp_path / "run")
    whole = train.train(config)
    assert whole["curves"]["epoch"] == [2, 4, 6, 8]
    for epochs in (3, 5, 8):  # 3 and 5 are measured because they are the last
        part = replace(config, preset=replace(config.preset, epochs=epochs), resume=epochs > 3)
        found = run_command("graphs", part, train.load, train.train)
    assert (found["curves"], found["metrics"]) == (whole["curves"], whole["metrics"])


@pytest.mark.parametrize("module", ["train", "alignment", "autoencoder"])
def test_several_processes_are_refused_with_the_reason(module, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train"])
    monkeypatch.delitem(sys.modules, f"graphs.{module}")
    with pytest.raises(SystemExit, match="2"):
        runpy.run_module(f"graphs.{module}", run_name="__main__", alter_sys=True)
    message = capsys.readouterr().err
    assert "2 processes were asked for, and graphs trains in one: an epoch is one step on the whole graph" in message
    assert not (tmp_path / "runs").exists()


def test_the_releases_alignment_of_backpropagation_with_itself_is_one_without_dropout_and_less_with_it():
    for name, exact in (("cheb_dfa", True), ("spline_dfa", False)):
        preset = replace(PRESETS[name], method=Method.BP)
        graph = train.load(alignment.Config(preset=preset))
        model = build_model(preset, graph.features, graph.classes)
        attachment = train.attach_method(model, preset, seed=0)
        cosine = measurement.released_alignment(model, attachment, graph).mean().item()
        assert (cosine == pytest.approx(1.0, abs=1e-4)) == exact


def test_the_releases_alignment_is_the_cosine_of_two_gradients_by_hand():
    """A linear top, no dropout: DFA's gradient is e F where the unit is on, backpropagation's goes back through it."""
    preset = PRESETS["cheb_dfa"]
    graph = train.load(alignment.Config(preset=preset))
    torch.manual_seed(0)
    model = build_model(preset, graph.features, graph.classes)
    attachment = train.attach_method(model, preset, seed=0)
    found = measurement.released_alignment(model, attachment, graph)
    with torch.no_grad():
        below = model.conv1(graph.x, graph)
    on, hidden = (below > 0).float(), below.relu().requires_grad_()
    logits = model.conv2(hidden, graph)
    error = (logits.softmax(dim=1) - F.one_hot(graph.y, graph.classes)) / graph.nodes
    (back,) = torch.autograd.grad(logits, hidden, error)
    dfa = error @ attachment.state_dict()["feedback_matrix"][:, :16] / 4
    expected = F.cosine_similarity(back * on, dfa * on, dim=1)
    seen = (dfa * on).abs().amax(dim=1) > 1e-6  # where nothing counts as zero
    torch.testing.assert_close(found[seen], expected[seen], atol=1e-3, rtol=0)
