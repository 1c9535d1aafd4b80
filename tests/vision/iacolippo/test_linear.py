"""The linear theory: closed forms of the first steps, the balance that keeps W2 along B, and the command."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.command import command as the_command
from harness.command import run_command
from harness.errors import UserError
from harness.options import make
from tests.draws import feedback_generator
from tinydfa import Method
from vision.iacolippo import linear
from vision.iacolippo.linear import Config, LinearNet, cosine, make_task, measure, train, train_step

LR = 1e-6


def command(config):
    return run_command("vision", config, linear.load, linear.train_and_draw)


@pytest.fixture
def world():
    """A task, a network at zero under DFA, and the feedback B ``[hidden, 10]`` as the library draws it."""
    from tinydfa import Feedback, attach

    torch.manual_seed(0)
    m, x, y = make_task()
    net = LinearNet(200, 0.0).double()
    feedback = Feedback(distribution="gaussian", scaling="none", seed=3)
    attach(net, "dfa", feedback=feedback)
    optimizer = torch.optim.SGD(net.parameters(), LR)
    b = torch.randn(10, 200, generator=feedback_generator(3)).double().T.numpy()
    return m, x, y, net, optimizer, b


def weights(net):
    return net.first.weight.detach().numpy().copy(), net.top.weight.detach().numpy().copy()


def test_the_first_step_writes_the_projected_correlation_into_w1_and_leaves_w2_at_zero(world):
    _, x, y, net, optimizer, b = world
    train_step(net, x, y, optimizer)
    first, top = weights(net)
    np.testing.assert_allclose(first, LR * b @ (y.T @ x).numpy(), rtol=1e-9)
    assert not top.any()


def test_the_second_step_turns_w2_to_the_feedback_by_the_closed_form(world):
    _, x, y, net, optimizer, b = world
    train_step(net, x, y, optimizer)
    train_step(net, x, y, optimizer)
    _, top = weights(net)
    c = (y.T @ x).numpy()
    np.testing.assert_allclose(top, LR**2 * c @ c.T @ b.T, rtol=1e-9)
    expected = np.sum((c @ c.T) * (b.T @ b)) / np.linalg.norm(c @ c.T @ b.T) / np.linalg.norm(b)
    assert expected > 0.5
    assert cosine(torch.from_numpy(b.T), net.top.weight) == pytest.approx(expected)


def test_the_imbalance_of_the_layers_is_what_finite_steps_leave(world):
    _, x, y, net, optimizer, b = world
    left = np.zeros((200, 200))
    for _ in range(60):
        before, _ = weights(net)
        train_step(net, x, y, optimizer)
        first, top = weights(net)
        left += (first - before) @ (first - before).T
        np.testing.assert_allclose(first @ first.T - b @ top - (b @ top).T, left, atol=1e-9 * np.abs(left).max())
        assert np.sum(top * b.T) == pytest.approx((np.sum(first**2) - np.trace(left)) / 2)
        assert np.sum(top * b.T) >= -1e-12


def test_measure_reports_what_its_docstring_says(world):
    m, x, y, net, optimizer, b = world
    for _ in range(30):
        _, error = train_step(net, x, y, optimizer)
    first, top = weights(net)
    found = measure(net, m, error, torch.from_numpy(b.T))
    mean = error.numpy().mean(axis=0)
    one, other = b @ mean, top.T @ mean
    assert found["alignment"] == pytest.approx(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
    assert found["distance"] == pytest.approx(np.abs(top @ first - m.numpy()).sum())
    assert found["norm_first"] == pytest.approx(np.sqrt((first**2).sum()))
    assert found["norm_top"] == pytest.approx(np.sqrt((top**2).sum()))
    gap = first @ first.T - b @ top - (b @ top).T
    assert found["imbalance"] == pytest.approx(np.linalg.norm(gap) / np.linalg.norm(first @ first.T))
    assert math.isnan(measure(net, m, error, None)["alignment"])


def test_dfa_learns_the_map_from_zero_and_stays_aligned_all_the_way():
    result = train(make(Config, method=Method.DFA, hidden=300, lr=3e-6, seed=1))
    assert result["metrics"]["cost"] <= 1e-3
    assert result["metrics"]["distance"] < 0.05
    assert result["metrics"]["steps"] < 1000
    assert result["metrics"]["thousand_steps"] * 1000 < result["metrics"]["steps"]
    assert min(result["curves"]["alignment_weights"]) > 0.5
    assert min(result["curves"]["alignment"]) > 0
    assert result["curves"]["step"][:3] == [1, 11, 21]
    assert result["metrics"]["alignment_11"] == result["curves"]["alignment"][1]


@pytest.mark.parametrize("method", [Method.BP, Method.SHALLOW])
def test_from_zero_weights_only_a_feedback_can_move(method):
    metrics = train(make(Config, method=method, hidden=50))["metrics"]
    assert metrics["steps"] == 2
    assert metrics["norm_first"] == metrics["norm_top"] == 0
    assert metrics["alignment"] is None


@pytest.mark.parametrize("method", [Method.SDFA, Method.TDFA, Method.FA])
def test_other_methods_lower_the_cost(method):
    curves = train(make(Config, method=method, hidden=300, steps=202, lr=3e-6))["curves"]
    assert curves["cost"][-1] < 0.5 * curves["cost"][0]


def test_bp_learns_from_a_random_start_and_the_same_seed_gives_the_same_numbers():
    one, again = (
        train(make(Config, method=Method.BP, init_std=0.1, hidden=300, steps=300))["metrics"] for _ in range(2)
    )
    assert one["cost"] < 1e3
    assert one == again


def test_impossible_arguments_are_refused():
    for options in ({"method": Method.DRTP}, {"init_std": -1.0}, {"hidden": 0}, {"lr": 0.0}, {"steps": 0}):
        with pytest.raises(UserError):
            make(Config, **options)


@pytest.mark.parametrize("number", [math.nan, math.inf])
@pytest.mark.parametrize("option", ["init_std", "lr"])
def test_start_and_learning_rate_must_be_finite(option, number):
    with pytest.raises(UserError, match=f"--{option.replace('_', '-')} {number}: .*finite"):
        make(Config, **{option: number})


def test_a_layer_for_which_there_is_no_memory_is_refused():
    with pytest.raises(UserError, match="--hidden 99999999999: give 1 to 10,000,000"):
        make(Config, hidden=99999999999)


def test_a_run_of_one_step_has_a_curve_of_that_step_and_no_published_cosine(tmp_path):
    command(make(Config, hidden=50, steps=1, out=tmp_path))
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["curves"]["step"] == [0]
    assert (result["metrics"]["steps"], result["metrics"]["alignment_1"]) == (1, None)
    assert (tmp_path / "theory.png").exists()


def test_too_large_a_learning_rate_is_an_error_not_a_number():
    with pytest.raises(UserError, match="diverged"):
        train(make(Config, hidden=50, lr=1.0))


def test_the_command_prints_the_theory_and_leaves_a_picture(tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        the_command(
            "vision",
            Config,
            linear.load,
            linear.train_and_draw,
            argv=["--hidden", "50", "--steps", "12", "--out", str(tmp_path / "run")],
        )
    assert left.value.code == 0
    printed = capsys.readouterr().out.strip().splitlines()
    assert printed[0].startswith("step 1 ")
    assert "alignment" in printed[0]
    assert json.loads(printed[-1])["metrics"] == json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]
    assert (tmp_path / "run" / "theory.png").read_bytes().startswith(b"\x89PNG")


def test_the_picture_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(linear, "write_whole", lambda path, content: written.append((path.name, content[:4])))
    command(make(Config, hidden=50, steps=12, out=tmp_path))
    assert written == [("theory.png", b"\x89PNG")]


def test_the_table_runs_every_start_and_method_and_keeps_its_curves():
    from harness.tables import RunContext
    from harness.tables.aggregate import quick
    from vision.iacolippo.tables import LINEAR

    runs = {cell.key: cell for cell in quick(LINEAR).cells}
    assert set(runs) >= {"linear_zero_dfa", "linear_zero_bp", "linear_random_bp", "linear_random_dfa"}
    for preset, cell in runs.items():
        result = LINEAR.run(cell, 0, RunContext(scale="quick", epochs=22))
        assert result["method"] == preset.split("_")[2]
        assert result["config"]["init_std"] == (0 if "zero" in preset else 0.1)
        assert len(result["curves"]["cost"]) == (1 if preset == "linear_zero_bp" else 3)
    published = {cell.column: cell.published for cell in LINEAR.cells if cell.published is not None}
    assert list(published.values()) == [0.8923, 0.9051, 0.8497, 0.0095, 0.451]


@pytest.mark.parametrize("option", ["--data-dir"])
def test_an_option_without_effect_is_none_of_this_command(option, capsys):
    with pytest.raises(SystemExit) as left:
        the_command("vision", Config, linear.load, linear.train_and_draw, argv=[option, "3"])
    assert left.value.code == 2
    assert option in capsys.readouterr().err
    with pytest.raises(SystemExit):
        the_command("vision", Config, linear.load, linear.train_and_draw, argv=["--help"])
    shown = capsys.readouterr().out
    assert "--resume" in shown
    assert option not in shown


class KilledError(Exception):
    pass


def test_a_resumed_run_ends_like_an_uninterrupted_one_and_can_be_prolonged(tmp_path, monkeypatch, capsys):
    config = make(Config, hidden=50, steps=45, checkpoint_every=20)
    whole, steps, step = train(config), iter(range(100)), linear.train_step

    def killed(*given):
        if next(steps) == 33:
            raise KilledError
        return step(*given)

    monkeypatch.setattr(linear, "train_step", killed)
    with pytest.raises(KilledError):
        command(replace(config, out=tmp_path))
    monkeypatch.setattr(linear, "train_step", step)
    resumed = command(replace(config, out=tmp_path, resume=True))
    assert resumed["metrics"] == whole["metrics"]
    assert resumed["curves"] == whole["curves"]
    for steps in (70, 90):  # and again
        longer = replace(config, preset=replace(config.preset, steps=steps))
        assert command(replace(longer, out=tmp_path, resume=True))["metrics"] == train(longer)["metrics"]
