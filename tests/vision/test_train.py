"""Training: what it learns, what it counts, and that an interrupted run ends like one that was not interrupted."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.command import run_command
from harness.errors import UserError
from harness.options import make, parse
from harness.run import Run
from tinydfa import Method, attach
from vision import train, training
from vision.data.splits import Data, Split
from vision.history import History
from vision.train import Config

ROOT = Path(__file__).resolve().parents[2]
LEARN = {"epochs": 30, "lr": 6e-3, "hidden": (100,)}


def command(config):
    return run_command("vision", config, train.load, train.train)


def error(method, **options):
    return train.train(make(Config, method=method, **(LEARN | options)))["metrics"]["test_error"]


def test_every_method_learns_and_those_that_train_hidden_layers_beat_shallow():
    errors = {method: error(method) for method in Method}
    shallow = errors.pop(Method.SHALLOW)
    assert shallow < 0.12
    assert errors.pop(Method.SDFA) < 0.12  # the signs of a small error are as loud as those of a large one
    assert all(found < shallow - 0.015 for found in errors.values()), errors
    assert errors[Method.BP] < 0.04
    assert errors[Method.DFA] < 0.04


@pytest.mark.parametrize("model", ["topology", "cnn", "lenet", "lenet-mnist"])
def test_every_model_trains_on_the_embedded_data(model):
    topology = {"topology": "CONV_4_3_1_1_FC_20_FC_10"} if model == "topology" else {}
    result = train.train(make(Config, model=model, **topology, epochs=1, hold_out=0, batch=300))
    assert 0 < result["metrics"]["test_error"] < 1


@pytest.mark.parametrize("model", ["fc", "cnn", "resnet20"])
def test_training_without_stored_graphs_gives_the_same_curves(model):
    options = {"model": model, "method": "dfa", "epochs": 1, "hold_out": 0, "batch": 300}
    expected, *others = (
        train.train(make(Config, memory=memory, **options))["curves"]["train_loss"] for memory in (None, "replay", "1M")
    )
    assert others == [expected, expected]


def test_the_same_seed_gives_the_same_run_and_another_seed_another():
    first, again, other = (
        train.train(make(Config, epochs=3, seed=seed, dropout=0.2))["curves"]["train_loss"] for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_loss_and_error_are_means_over_samples_also_when_the_last_batch_is_small():
    torch.manual_seed(0)
    x, y = torch.randn(7, 4), torch.randint(0, 10, (7,))
    data = Data("made", Split(x, y), None, Split(x, y), 10, 10, (4,))
    model = torch.nn.Linear(4, 10)
    preset = replace(make(Config, method=Method.BP).preset, loss="ce", lr=1e-12, batch=3)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-12)
    loss, share = training.train_epoch(model, data.train, optimizer, preset, attach(model, Method.BP))
    logits = model(x)
    assert loss == pytest.approx(torch.nn.functional.cross_entropy(logits, y).item(), rel=1e-5)
    assert share == pytest.approx((logits.argmax(1) != y).float().mean().item())
    assert training.evaluate(model, data.test, preset) == pytest.approx((loss, share), rel=1e-5)


def test_the_sum_over_a_batch_is_the_mean_at_a_rate_as_many_times_larger():
    torch.manual_seed(0)
    x, y = torch.randn(6, 4), torch.randint(0, 10, (6,))
    preset = replace(make(Config, method=Method.BP).preset, loss="ce", batch=6)
    weights = []
    for reduction, lr in (("mean", 0.6), ("sum", 0.1)):
        torch.manual_seed(1)
        model = torch.nn.Linear(4, 10)
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        attachment = attach(model, Method.BP)
        training.train_epoch(model, Split(x, y), optimizer, replace(preset, reduction=reduction), attachment)
        weights.append(model.weight.detach())
    torch.testing.assert_close(*weights)


def test_reported_is_the_last_epoch_or_the_first_best_on_held_out_images():
    history = History(test_error=[0.3, 0.2, 0.1], seconds=[1.0, 5.0, 2.0])
    assert history.metrics() == {
        "test_error": 0.1,
        "test_accuracy": 0.9,
        "epochs": 3,
        "seconds_per_epoch": 2.0,
    }
    history.val_error = [0.4, 0.2, 0.2]
    assert history.metrics()["test_error"] == 0.2


def test_a_run_with_a_tolerance_ends_when_the_training_error_settles():
    assert not History(train_error=[0.5, 0.4]).has_settled(0.0)
    assert not History(train_error=[0.5]).has_settled(1.0)
    assert not History(train_error=[0.5, 0.4]).has_settled(0.05)
    assert History(train_error=[0.9, 0.42, 0.4]).has_settled(0.05)


def test_alignment_is_kept_for_every_point_and_epoch():
    curves = train.train(make(Config, epochs=20, hidden=(50, 40), alignment_every=1, lr=3e-3))["curves"]
    points = [name for name in curves if name.startswith("alignment")]
    assert points == ["alignment hidden.0.point", "alignment hidden.1.point"]
    assert all(len(curves[name]) == 20 and curves[name][-1] > curves[name][0] for name in points)


def test_first_weights_are_those_of_the_lowest_layer():
    curves = train.train(make(Config, epochs=1, keep_weights=3))["curves"]
    assert [len(row) for row in curves["first_weights"]] == [64, 64, 64]


def test_a_regression_has_a_loss_and_no_error():
    metrics = train.train(make(Config, preset="drtp_regression_dfa", dataset="drtp-regression", epochs=2))["metrics"]
    assert metrics["test_loss"] > 0
    assert "test_error" not in metrics


def test_the_embedded_data_is_too_small_to_hold_out_what_is_published_for_another():
    for dataset, held in (("digits", 0), ("synthetic", 0), ("cifar10", 5000)):
        assert make(Config, model="lenet", dataset=dataset).preset.hold_out == held
    assert make(Config, model="lenet", hold_out=200).preset.hold_out == 200


def test_a_run_that_measures_alignment_does_not_continue_one_that_did_not(tmp_path):
    config = make(Config, epochs=1, out=tmp_path)
    command(config)
    with pytest.raises(UserError, match=r"another configuration \(alignment_every: None -> 1"):
        command(replace(config, resume=True, alignment_every=1))
    command(replace(config, resume=True))


def test_a_number_of_units_is_not_negative():
    with pytest.raises(UserError, match="--keep-weights -1: give 0 or more"):
        make(Config, keep_weights=-1)


class KilledError(Exception):
    pass


@pytest.mark.parametrize(
    "options",
    [
        {"method": Method.BRSF, "dropout": 0.1},
        {"preset": "drtp_mnist_fc2-500_drtp"},
        {"topology": "CONV_4_3_1_1_FC_20_FC_10", "hold_out": 200},
    ],
)
def test_a_resumed_run_ends_like_an_uninterrupted_one(options, tmp_path, monkeypatch, capsys):
    config = make(Config, epochs=5, checkpoint_every=2, seed=5, alignment_every=1, **options)
    whole = train.train(config)

    epochs = iter(range(100))
    train_epoch = training.train_epoch

    def killed_in_the_fourth_epoch(*arguments):
        if next(epochs) == 3:
            raise KilledError
        return train_epoch(*arguments)

    monkeypatch.setattr(training, "train_epoch", killed_in_the_fourth_epoch)
    with pytest.raises(KilledError):
        command(replace(config, out=tmp_path))
    monkeypatch.setattr(training, "train_epoch", train_epoch)
    torch.manual_seed(999)
    command(replace(config, out=tmp_path, resume=True))
    resumed = json.loads((tmp_path / "result.json").read_text())
    assert resumed["curves"] == whole["curves"]
    same = {name: value for name, value in whole["metrics"].items() if name != "seconds_per_epoch"}
    assert {name: resumed["metrics"][name] for name in same} == same
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"method": "drtp", "preset": "drtp_regression_bp"}, "trains by bp and --method says drtp"),
        ({"dataset": "drtp-regression", "method": "drtp"}, "drtp reads class targets, and drtp-regression"),
        ({"dataset": "drtp-regression", "method": "dfa"}, "--loss bce needs classes"),
        ({"model": "fcn"}, "--model fcn: no such model"),
        ({"preset": "drtp"}, "--preset drtp: no such preset"),
        ({"dataset": "mnits"}, "--dataset mnits: no such data set"),
        ({"topology": "CONV_3_FC_10"}, "at character 8, the kernel of CONV is 'FC'"),
        ({"topology": "FC_20_FC_11"}, "End it with FC_10"),
        ({"dropout": 1.0}, "a dropout rate lies in"),
        ({"optimizer": "lion"}, "no optimizer is called 'lion'"),
        ({"loss": "hinge"}, "no loss is called 'hinge'"),
        ({"batch": 0}, "batch is 0; it must be above 0"),
        ({"lr": math.inf}, "lr is inf; it must be above 0, and finite"),
        ({"hidden": ()}, "--hidden names no width, .*such as --hidden 500"),
        ({"hidden": (0,)}, "--hidden 0: a width lies in 1 to 10,000,000"),
        ({"hidden": (500, -5)}, "--hidden 500 -5: a width lies in 1 to 10,000,000"),
        ({"hidden": (99999999999,)}, "--hidden 99999999999: a width lies in 1 to 10,000,000"),
        ({"preset": "biotorch_lenet_dfa"}, "--hold-out 5000: of 1437 training samples"),
        ({"freeze_convs": True}, r"--freeze-convs: this network \(fc\) has no convolutions"),
        ({"topology": "FC_20_FC_10", "freeze_convs": True}, "has no convolutions"),
        ({"model": ""}, "--model : no such model"),
        ({"preset": ""}, "--preset : no such preset"),
    ],
)
def test_a_mistake_leaves_no_folder_and_says_what_is_wrong(options, complaint, tmp_path):
    options = options | {"method": Method(options["method"])} if "method" in options else options
    with pytest.raises(UserError, match=complaint):
        command(make(Config, out=tmp_path / "run", **options))
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_the_run_with_its_checkpoint_kept(tmp_path):
    config = make(Config, epochs=3, checkpoint_every=1, out=tmp_path, optimizer="sgd")
    data = train.load(config)

    class Poisoned(Split):
        def to(self, device):
            return self

        def batches(self, *arguments, **options):
            for x, y in super().batches(*arguments, **options):
                yield (x * float("nan") if (tmp_path / "checkpoint.pt").exists() else x), y

    poisoned = replace(data, train=Poisoned(data.train.x, data.train.y))
    with Run("vision", "poisoned", {}, tmp_path) as run, pytest.raises(Exception, match=r"not finite|loss is nan"):
        train.train(config, run, poisoned)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 1


def test_the_command_prints_its_result_and_refuses_a_typo_with_status_2(tmp_path):
    command = [sys.executable, "-m", "vision.train", "--epochs", "1", "--out", str(tmp_path / "run")]
    done = subprocess.run([*command, "--method", "drtp"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1])["method"] == "drtp"
    wrong = subprocess.run([*command, "--method", "dpa"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "drtp" in wrong.stderr
    assert "Traceback" not in wrong.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--model cnn --dropout 0.1", "--dropout has no effect with --model cnn, only with fc or topology"),
        ("--preset biotorch_lenet_dfa --dropout 0.1", "--dropout has no effect with --model lenet"),
        ("--model resnet20 --act tanh", "--act has no effect with --model resnet20"),
        ("--topology FC_20_FC_10 --model lenet", "--topology has no effect with --model lenet, only with topology"),
        ("--model cnn --hidden 20", "--hidden has no effect with --model cnn, only with fc"),
        ("--alignment", "--alignment is called --alignment-every 1 now"),
        ("--alignment-every 0", "--alignment-every 0: give at least 1"),
    ],
)
def test_an_option_that_the_run_does_not_have_is_refused(words, message):
    with pytest.raises(UserError, match=message):
        parse(Config, words.split())


def test_a_topology_chooses_its_model_and_digits_are_the_synthetic_data():
    assert parse(Config, ["--topology", "FC_20_FC_10"]).preset.model == "topology"
    for dataset in ("digits", "synthetic"):
        assert train.load(make(Config, dataset=dataset)).name == "digits"
    assert parse(Config, ["--freeze-convs", "True", "--model", "topology"]).preset.freeze_convs


def test_a_run_can_be_prolonged(tmp_path, capsys):
    short = make(Config, epochs=2, dropout=0.2, out=tmp_path)
    command(short)
    longer = replace(short, preset=replace(short.preset, epochs=4))
    prolonged = command(replace(longer, resume=True))
    assert prolonged["curves"] == train.train(longer)["curves"]
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4]


def test_a_run_that_was_prolonged_is_prolonged_again_to_what_it_had_been_at_once(tmp_path):
    config = make(Config, epochs=7, hidden=(20,), dropout=0.2, alignment_every=2, checkpoint_every=3, out=tmp_path)
    whole = train.train(config)["curves"]
    for epochs in (3, 4, 5, 7):  # of which 3 and 5 are measured because they are the last
        found = command(replace(config, preset=replace(config.preset, epochs=epochs), resume=epochs > 3))["curves"]
    assert found == whole
    assert len(found["alignment hidden.0.point"]) == 4


def test_the_alignment_is_measured_every_so_many_epochs_and_after_the_last():
    curves = train.train(make(Config, epochs=5, hidden=(20,), alignment_every=2))["curves"]
    assert len(curves["alignment hidden.0.point"]) == 3
    assert len(curves["train_loss"]) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "principled_fc_tanh_dfa", "batch": 2000}, "--batch 2000 leaves no whole batch of 1437 samples"),
        ({"train_images": 5000}, "--train-images 5000: there are 1437 to train on"),
        ({"train_images": 1400, "hold_out": 100}, "--train-images 1400: there are 1337 to train on"),
    ],
)
def test_more_images_than_there_are_are_refused_before_a_folder_is_made(tmp_path, options, message):
    config = make(Config, out=tmp_path / "run", device="cpu", **options)
    with pytest.raises(UserError, match=message):
        command(config)
    assert not (tmp_path / "run").exists()
