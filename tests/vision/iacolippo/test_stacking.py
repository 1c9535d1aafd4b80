"""Stacking: who shares weights with whom, what the features are, what is reported, and what the command refuses."""

import json
from dataclasses import replace

import pytest
import torch

from harness.command import command as the_command
from harness.command import run_command
from harness.errors import UserError
from harness.options import make
from harness.run import NullRun
from tests.draws import feedback_generator
from tinydfa import Method
from vision.data.splits import Data, Split
from vision.iacolippo import stacking
from vision.iacolippo.stacking import (
    TOPS,
    Config,
    Trained,
    build_top,
    first_samples,
    learner_outputs,
    load,
    stack,
    train_top,
)

SMALL = {"learners": 3, "learner_epochs": 1, "epochs": 2, "batch": 100}
HIDDEN = 30


@pytest.fixture(autouse=True)
def narrow_learners(monkeypatch):
    monkeypatch.setattr(stacking, "HIDDEN", HIDDEN)


@pytest.fixture(scope="module")
def digits():
    return load(make(Config))


@pytest.fixture(scope="module")
def blobs():
    """Features that a linear layer separates: class k lifts feature k."""
    torch.manual_seed(0)
    y = torch.arange(600) % 10
    x = torch.randn(600, 20)
    x[torch.arange(600), y] += 20
    return Data("blobs", Split(x[:500], y[:500]), None, Split(x[500:], y[500:]), 10, 10, (20,))


@pytest.mark.parametrize("init", ["same", "different"])
def test_learners_start_alike_or_not_and_always_have_a_feedback_and_an_order_of_their_own(monkeypatch, digits, init):
    starts, feedbacks, orders = [], [], []

    def spy(model, config, data, number):
        starts.append({name: value.clone() for name, value in model.state_dict().items()})
        orders.append(torch.randperm(50))
        feedbacks.append(stacking.feedback_seed(config.seed, number))
        return 0.0

    monkeypatch.setattr(stacking, "train_learner", spy)
    learner_outputs(make(Config, start=init, **SMALL), digits, NullRun("vision", {}), Trained())
    alike = all(torch.equal(starts[0][name], start[name]) for start in starts[1:] for name in starts[0])
    assert alike == (init == "same")
    assert len(set(feedbacks)) == 3
    assert not torch.equal(orders[0], orders[1])
    assert starts[0]["hidden.0.layer.0.weight"].std() == pytest.approx(1, abs=0.05)


def test_a_learner_takes_the_plain_steps_of_the_release(digits):
    torch.manual_seed(0)
    config, train = make(Config, **SMALL), replace(digits.train, x=digits.train.x.double())
    model = stacking.FullyConnected((64, HIDDEN, 10), "tanh").double()
    stacking.initialise(model, "normal")
    w1, b1 = (p.detach().clone() for p in (model.hidden[0].layer[0].weight, model.hidden[0].layer[0].bias))
    w2, b2 = (p.detach().clone() for p in (model.top.weight, model.top.bias))
    seed = stacking.feedback_seed(config.seed, 1)
    feedback = torch.randn(10, HIDDEN, generator=feedback_generator(seed)).double()
    torch.manual_seed(7)
    order = torch.randperm(len(train))
    torch.manual_seed(7)
    stacking.train_learner(model, config, train, 1)
    x, y = train.x.flatten(1), torch.eye(10).double()[train.y]
    for part in order[: len(order) // 100 * 100].view(-1, 100):
        h = torch.tanh(x[part] @ w1.T + b1)
        error = torch.sigmoid(h @ w2.T + b2) - y[part]
        delta = (error @ feedback) * (1 - h**2)
        w1, b1 = w1 - 1e-3 * delta.T @ x[part], b1 - 1e-3 * delta.sum(0)
        w2, b2 = w2 - 1e-3 * error.T @ h, b2 - 1e-3 * error.sum(0)
    torch.testing.assert_close(model.top.weight.detach(), w2)
    torch.testing.assert_close(model.hidden[0].layer[0].weight.detach(), w1)
    torch.testing.assert_close(model.hidden[0].layer[0].bias.detach(), b1)


def test_features_are_the_learners_outputs_side_by_side_and_the_average_is_theirs(digits):
    features, metrics = learner_outputs(make(Config, **SMALL), digits, NullRun("vision", {}), Trained())
    assert features.shape == (30,)
    assert features.train.x.shape == (len(digits.train), 30)
    outputs = features.test.x.view(len(digits.test), 3, 10)
    y = digits.test.y
    errors = [(outputs[:, number].argmax(1) != y).float().mean().item() for number in range(3)]
    assert metrics["learner_error_best"] == pytest.approx(min(errors))
    assert metrics["learner_error_mean"] == pytest.approx(sum(errors) / 3)
    assert metrics["average_error"] == pytest.approx((outputs.sum(1).argmax(1) != y).float().mean().item())
    assert len({round(value.item(), 4) for value in outputs[0, :, 0]}) == 3


def test_an_averaged_stack_of_trained_learners_beats_a_learner(digits):
    config = make(Config, learners=8, learner_epochs=10, batch=50)
    _, metrics = learner_outputs(config, digits, NullRun("vision", {}), Trained())
    assert metrics["average_error"] < metrics["learner_error_best"] <= metrics["learner_error_mean"] < 0.6


def test_the_dense_layer_learns_and_an_rd_layer_reports_how_far_its_feedback_is_from_the_gradient(blobs):
    config = make(Config, learners=2, epochs=60, batch=50)
    found = {
        top: train_top(config, top, blobs, NullRun("vision", {}), 0)[1]
        for top in ("dense", "rd-bp", "rd-dfa", "rd-dfa-r")
    }
    assert found["dense"]["test_error"] < 0.3
    assert abs(found["rd-dfa"]["alignment"]) < 0.3
    assert found["rd-dfa-r"]["attainable"] == pytest.approx(1)
    assert found["rd-dfa"]["attainable"] < 0.5
    assert "alignment" not in found["rd-bp"]


def test_the_dense_layer_sums_gradients_over_its_batch_and_the_rd_layer_averages_them(blobs):
    config = make(Config, learners=2, epochs=1, batch=500)
    model, attachment = build_top(config, "dense", blobs)
    before = model.weight.detach().clone()
    x, y = blobs.train.x, torch.eye(10)[blobs.train.y]
    error = torch.sigmoid(model(x)).detach() - y
    preset = config.preset.top_preset("dense")
    optimizer = stacking.make_optimizer(preset.optimizer, model, preset.lr)
    stacking.train_epoch(model, blobs.train, optimizer, preset, attachment)
    torch.testing.assert_close(model.weight.detach(), before - 1e-4 * error.T @ x, rtol=1e-4, atol=1e-5)

    rd, attachment = build_top(config, "rd-bp", blobs)
    before, a2 = rd.d2.detach().clone(), (rd.d1 * x).detach() @ rd.r.T
    error = torch.sigmoid(rd.d2 * a2).detach() - y
    preset = config.preset.top_preset("rd-bp")
    optimizer = stacking.make_optimizer(preset.optimizer, rd, preset.lr)
    stacking.train_epoch(rd, blobs.train, optimizer, preset, attachment)
    torch.testing.assert_close(rd.d2.detach(), before - 1e-3 * (a2 * error).mean(0), rtol=1e-4, atol=1e-5)


def test_lengths_and_rates_are_those_of_the_release():
    config = make(Config)
    learner, dense, rd = (
        config.preset.learner_preset(),
        config.preset.top_preset("dense"),
        config.preset.top_preset("rd-bp"),
    )
    assert (learner.lr, learner.epochs, learner.batch, learner.reduction) == (1e-3, 1, 200, "sum")
    assert (dense.lr, dense.epochs, dense.batch, dense.reduction) == (1e-4, 100, 200, "sum")
    assert (rd.lr, rd.epochs, rd.batch, rd.reduction) == (1e-3, 200, 200, "mean")
    assert config.preset.top_preset("rd-dfa-one") == replace(config.preset.top_preset("rd-dfa"), batch=1)
    assert (
        make(Config, epochs=3).preset.top_preset("rd-dfa").epochs
        == make(Config, epochs=3).preset.top_preset("dense").epochs
        == 3
    )


def test_one_sample_of_each_whole_batch_is_used():
    data = Split(torch.arange(25.0)[:, None], torch.arange(25))
    part = first_samples(data, 6)
    assert len(part) == 4
    assert len(set(part.y.tolist())) == 4
    assert torch.equal(part.x.flatten().long(), part.y)


def test_a_layer_on_top_does_not_depend_on_what_was_trained_before_it(digits):
    alone = stack(make(Config, top="rd-dfa-r", **SMALL), data=digits)["metrics"]
    every = stack(make(Config, top="all", **SMALL), data=digits)["metrics"]
    assert {name: every[name] for name in alone} == alone
    assert all(f"test_error {top}" in every for top in TOPS)


def test_the_seed_decides_everything(digits):
    one, again, other = (stack(make(Config, seed=seed, **SMALL), data=digits) for seed in (0, 0, 1))
    assert one["metrics"] == again["metrics"]
    assert one["curves"] == again["curves"]
    assert one["metrics"] != other["metrics"]
    assert len(one["curves"]["dense"]) == 2


@pytest.mark.parametrize("method", [Method.BP, Method.SHALLOW, Method.DRTP, Method.FA])
def test_learners_may_learn_by_any_method(digits, method):
    metrics = stack(make(Config, method=method, **SMALL), data=digits)["metrics"]
    assert 0 < metrics["learner_error_mean"] <= 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--learners", "0"], "--learners 0"),
        (["--top", "tower"], "--top"),
        (["--init", "none"], "--init"),
        (["--batch", "0"], "--batch 0"),
        (["--batch", "5000"], "no whole batch"),
        (["--learner-epochs", "0"], "--learner-epochs 0"),
        (["--dataset", "drtp-regression"], "regression"),
        (["--dataset", "nowhere"], "no such data set"),
    ],
)
def test_impossible_commands_leave_with_status_2_and_no_folder(tmp_path, capsys, arguments, complaint):
    with pytest.raises(SystemExit) as left:
        the_command("vision", Config, load, stack, argv=[*arguments, "--out", str(tmp_path / "run")])
    assert left.value.code == 2
    printed = capsys.readouterr().err
    assert complaint in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_impossible_configurations_are_refused_without_the_command():
    for options in ({"top": "tower"}, {"start": "none"}, {"learners": 0}):
        with pytest.raises(UserError):
            make(Config, **options)


def test_the_command_writes_what_it_prints(tmp_path, capsys):
    folder = tmp_path / "run"
    arguments = ["--learners", "2", "--epochs", "1", "--batch", "100", "--top", "all", "--out", str(folder)]
    with pytest.raises(SystemExit) as left:
        the_command("vision", Config, load, stack, argv=arguments)
    assert left.value.code == 0
    result = json.loads((folder / "result.json").read_text())
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["folder"] == str(folder)
    assert result["config"]["start"] == "different"
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 2 + len(TOPS) + 1))


def test_the_table_runs_small_and_its_picture_is_drawn(monkeypatch):
    from harness.tables import RunContext
    from harness.tables.aggregate import quick
    from vision.iacolippo.drawing import draw_stacking
    from vision.iacolippo.figures import runs_of
    from vision.iacolippo.tables import STACKING

    cells = {cell.key: cell for cell in quick(STACKING).cells}
    context = RunContext(scale="quick", epochs=1)
    keys = ("stacking_1_different", "stacking_5_same", "stacking_5_different")
    lines = [{"preset": key, "result": STACKING.run(cells[key], 0, context)} for key in keys]
    assert [line["result"]["config"]["learners"] for line in lines] == [1, 5, 5]
    assert [(preset.learners, preset.start) for preset, _ in runs_of(lines)] == [
        (1, "different"),
        (5, "same"),
        (5, "different"),
    ]
    assert all(cell.metric in lines[0]["result"]["metrics"] for cell in STACKING.cells)
    assert draw_stacking(runs_of(lines)).startswith(b"\x89PNG")


@pytest.mark.parametrize("option", ["--checkpoint-every"])
def test_an_option_without_effect_is_none_of_this_command(option, capsys):
    with pytest.raises(SystemExit) as left:
        the_command("vision", Config, load, stack, argv=[option, "3"])
    assert left.value.code == 2
    assert option in capsys.readouterr().err
    with pytest.raises(SystemExit):
        the_command("vision", Config, load, stack, argv=["--help"])
    shown = capsys.readouterr().out
    assert "--resume" in shown
    assert option not in shown


@pytest.mark.parametrize("length", ["learners", "learner_epochs", "epochs"])
def test_a_stack_is_not_prolonged_and_says_why(length, tmp_path):
    short = make(Config, top="dense", out=tmp_path, **(SMALL | {"epochs": 1}))
    run_command("vision", short, load, stack)
    longer = replace(short, preset=replace(short.preset, **{length: 7}), resume=True)
    with pytest.raises(UserError, match=rf"{length}, and a layer on top is trained .* prolonged to 7"):
        run_command("vision", longer, load, stack)


class KilledError(Exception):
    pass


@pytest.mark.parametrize("killed", ["train_learner", "train_top"])
def test_a_resumed_run_ends_like_an_uninterrupted_one(killed, tmp_path, monkeypatch, capsys):
    config = make(Config, top="all", start="same", **SMALL)
    whole = stack(config)
    work, calls = getattr(stacking, killed), iter(range(100))

    def third_is_killed(*given):
        if next(calls) == 2:
            raise KilledError
        return work(*given)

    monkeypatch.setattr(stacking, killed, third_is_killed)
    with pytest.raises(KilledError):
        run_command("vision", replace(config, out=tmp_path), load, stack)
    monkeypatch.setattr(stacking, killed, work)
    torch.manual_seed(999)
    resumed = run_command("vision", replace(config, out=tmp_path, resume=True), load, stack)
    assert resumed["metrics"] == whole["metrics"]
    assert resumed["curves"] == whole["curves"]
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 4 + 2 * len(TOPS)))
