"""Training: what it learns, and that an interrupted run ends like one that was not interrupted."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.command import command
from harness.errors import UserError
from harness.options import make, parse
from harness.precision import fastest
from nerf import step, train
from nerf import test as scoring
from nerf.config import Config
from nerf.curves import History
from nerf.field.fields import Fields, Rendering
from nerf.field.network import Architecture
from nerf.field.volume import render_rays
from nerf.output.alignment import network_alignment
from nerf.saved import load_run
from nerf.scene.rays import Rays
from nerf.step import drawing, train_step
from tests.nerf.commands import start
from tinydfa import Method

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"preset": "debug_dfa", "steps": 9, "checkpoint_every": 4, "log_every": 3, "rays": 16}


class KilledError(Exception):
    pass


def test_training_without_stored_graphs_gives_the_same_curves():
    small = {"width": 16, "depth": 3, "samples_coarse": 4, "samples_fine": 4, "test_views": 1}
    expected, *others = (
        train.train(make(Config, **(SMALL | small), memory=memory))["curves"] for memory in (None, "replay", "8K")
    )
    assert others == [expected, expected]


@pytest.mark.parametrize(
    "options", [{}, {"skip_empty": True}, {"samples_fine": 0}, {"preset": None, "method": Method.BRSF, "size": 8}]
)
def test_a_resumed_run_ends_like_an_uninterrupted_one(options, tmp_path, monkeypatch, capsys):
    small = {"width": 16, "depth": 2, "samples_coarse": 4, "samples_fine": 4, "test_views": 1}
    config = make(Config, **(SMALL | small | {"seed": 5} | options))
    monkeypatch.setattr(train, "GRID_EVERY", 1)
    monkeypatch.setattr(step, "GRID_WARMUP", 2)
    monkeypatch.setattr(step, "GRID_ROUNDS", 2)
    whole = train.train(config)

    steps = iter(range(100))
    original = train.train_step

    def killed_in_the_seventh_step(*arguments, **named):
        if next(steps) == 6:
            raise KilledError
        return original(*arguments, **named)

    monkeypatch.setattr(train, "train_step", killed_in_the_seventh_step)
    with pytest.raises(KilledError):
        start(replace(config, out=tmp_path))
    monkeypatch.setattr(train, "train_step", original)
    torch.manual_seed(999)
    start(replace(config, out=tmp_path, resume=True))

    resumed = json.loads((tmp_path / "result.json").read_text())
    assert resumed["curves"] == whole["curves"]
    scores = ("test_psnr", "train_psnr")
    assert [resumed["metrics"][name] for name in scores] == [whole["metrics"][name] for name in scores]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [3, 6, 9]
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["metrics"] == resumed["metrics"]


def speed_of_the_resumed(folder, capsys, **changes):
    start(make(Config, **(SMALL | changes), out=folder, resume=True))
    return json.loads(capsys.readouterr().out.splitlines()[-1])["metrics"]["rays_per_second"]


def test_the_speed_counts_the_steps_before_a_resume_as_well(tmp_path, capsys):
    start(make(Config, **SMALL, out=tmp_path))
    whole = json.loads(capsys.readouterr().out.splitlines()[-1])["metrics"]["rays_per_second"]
    assert 0 < speed_of_the_resumed(tmp_path, capsys) == pytest.approx(whole, rel=1e-6)

    checkpoint = torch.load(tmp_path / "checkpoint.previous.pt", weights_only=True)
    assert (checkpoint["step"], checkpoint["state"]["history"]["rays"]) == (8, 8 * 16)
    checkpoint["state"]["history"]["seconds"] = 1000.0
    torch.save(checkpoint, tmp_path / "checkpoint.pt")
    assert speed_of_the_resumed(tmp_path, capsys) == pytest.approx(9 * 16 / 1000, rel=0.01)


def test_a_checkpoint_without_a_time_still_continues(tmp_path, capsys):
    start(make(Config, **SMALL, out=tmp_path))
    for name, speed_known in (("checkpoint.previous.pt", True), ("checkpoint.pt", False)):
        checkpoint = torch.load(tmp_path / name, weights_only=True)
        del checkpoint["state"]["history"]["rays"], checkpoint["state"]["history"]["seconds"]
        torch.save(checkpoint, tmp_path / "checkpoint.pt")
        assert (speed_of_the_resumed(tmp_path, capsys) is not None) == speed_known


def test_the_same_seed_gives_the_same_run_and_another_seed_another():
    first, again, other = (train.train(make(Config, **SMALL, seed=seed))["curves"] for seed in (0, 0, 1))
    assert first == again
    assert first["train_psnr"] != other["train_psnr"]


def scene_of_a_ball(count=400):
    """Rays past and onto a shaded ball of radius 1, and what they see of it, in closed form."""
    generator = torch.Generator().manual_seed(7)
    heights = torch.rand(count, 2, generator=generator) * 3 - 1.5
    origins = torch.cat([heights, torch.full((count, 1), 4.0)], dim=1)
    directions = torch.tensor([[0.0, 0.0, -1.0]]).expand(count, 3)
    square = heights.square().sum(1, keepdim=True)
    hit = square < 1
    normals = torch.cat([heights, (1 - square).clamp_min(0).sqrt()], dim=1)
    colours = torch.where(hit, 0.5 + 0.5 * normals, torch.ones(count, 3))
    ends = torch.ones(count, 1)
    return Rays(origins, directions, directions, 2 * ends, 6 * ends), colours


def fitted(method, steps=120, lr=3e-3):
    """Error on the ball's rays after training on them."""
    torch.manual_seed(0)
    shape = Architecture(depth=3, width=48, position_frequencies=4, view_frequencies=1)
    fields = Fields(shape, Rendering(samples_coarse=12, samples_fine=12, density="softplus"))
    train.attach_all(fields, method, seed=0)
    optimizer = torch.optim.Adam(fields.parameters(), lr)
    rays, colours = scene_of_a_ball()
    for number in range(steps):
        generator = drawing(0, number, torch.device("cpu"))
        train_step(fields, rays, colours, optimizer, generator, batch=60, chunk=60)
    with torch.no_grad():
        return (render_rays(fields, rays).colour - colours).square().mean().item()


def test_dfa_learns_far_more_than_shallow_and_not_far_less_than_backpropagation():
    bp, dfa, shallow = (fitted(method) for method in (Method.BP, Method.DFA, Method.SHALLOW))
    assert dfa < shallow / 2, (bp, dfa, shallow)
    assert bp < dfa < 10 * bp, (bp, dfa, shallow)


def gradients_after(chunk, method, **settings):
    torch.manual_seed(0)
    shape = Architecture(depth=2, width=16, position_frequencies=2, view_frequencies=1)
    fields = Fields(shape, Rendering(samples_coarse=6, samples_fine=6, **settings))
    train.attach_all(fields, method, seed=0)
    rays, colours = scene_of_a_ball(60)
    optimizer = torch.optim.SGD(fields.parameters(), lr=0.0)
    generator = drawing(0, 0, torch.device("cpu"))
    errors = train_step(fields, rays, colours, optimizer, generator, batch=30, chunk=chunk)
    return errors, [parameter.grad for parameter in fields.parameters()]


@pytest.mark.parametrize("method", [Method.BP, Method.DFA])
def test_the_chunk_changes_neither_error_nor_gradient(method, monkeypatch):
    # at evenly spaced depths: drawn ones depend on how many rays they are drawn for at once
    monkeypatch.setattr(step, "render_rays", lambda fields, rays, generator, own: render_rays(fields, rays))
    (whole, expected), (parts, found) = (gradients_after(chunk, method, density="softplus") for chunk in (30, 7))
    torch.testing.assert_close(parts, whole)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_what_a_step_draws_depends_on_seed_and_step_alone():
    cpu = torch.device("cpu")
    draws = {pair: torch.rand(3, generator=drawing(*pair, cpu)).tolist() for pair in ((0, 1), (1, 0), (0, 2), (1, 1))}
    assert len({tuple(values) for values in draws.values()}) == 4
    assert torch.rand(3, generator=drawing(0, 1, cpu)).tolist() == draws[0, 1]


def test_curves_are_in_decibel():
    history = History()
    assert history.add(10, 0.1, 0.01, 0.001)["test_psnr"] == pytest.approx(30.0)
    assert history.curves()["step"] == [10]
    assert history.curves()["train_psnr"] == pytest.approx([20.0])
    assert history.curves()["train_coarse_psnr"] == pytest.approx([10.0])


def test_a_finished_run_can_be_loaded_and_scores_as_it_said(tmp_path, capsys):
    precision = fastest(torch.device("cpu"))
    start(make(Config, **SMALL, skip_empty=True, precision=precision, out=tmp_path))
    result = json.loads((tmp_path / "result.json").read_text())
    capsys.readouterr()
    fields, preset = load_run(tmp_path)
    assert (preset.method, preset.rays, preset.steps, preset.skip_empty) == (Method.DFA, 16, 9, True)
    assert fields.occupied is not None
    assert preset.precision == fields.rendering.precision == precision
    scoring.main(scoring.Config(run=tmp_path, views=1))
    scores = json.loads(capsys.readouterr().out)
    assert scores["metrics"]["test_psnr"] == pytest.approx(result["metrics"]["test_psnr"], abs=1e-5)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="Give the folder of a run"):
        load_run(tmp_path)
    (tmp_path / "config.yaml").write_text("model: gcn\n")
    with pytest.raises(UserError, match=r"is not of a run of nerf\.train"):
        load_run(tmp_path)
    start(make(Config, **SMALL, out=tmp_path / "run"))
    (tmp_path / "run" / "checkpoint.pt").unlink()
    with pytest.raises(UserError, match="has no checkpoint yet"):
        load_run(tmp_path / "run")


def test_scores_need_a_size_and_a_file_and_say_so_before_any_work(tmp_path):
    with pytest.raises(UserError, match="--size 0: give at least 1"):
        scoring.Config(run=tmp_path, size=0)
    with pytest.raises(UserError, match=r"is a folder\. Name a file, such as .*scores\.json"):
        scoring.Config(run=tmp_path, out=tmp_path)


def test_the_scene_of_a_run_is_taken_only_where_none_is_named(tmp_path, capsys):
    start(make(Config, **SMALL, out=tmp_path))
    with pytest.raises(UserError, match="--scene : the synthetic data set has one scene"):
        scoring.test(scoring.Config(run=tmp_path, scene=""))
    with pytest.raises(UserError, match="--dataset : no such data set"):
        scoring.test(scoring.Config(run=tmp_path, dataset=""))


@pytest.mark.slow
def test_a_compiled_run_learns_the_same(monkeypatch):
    """Without the code generator, which takes minutes where there is no GPU."""
    compile_ = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **named: compile_(self, backend="aot_eager", **named))
    short = SMALL | {"steps": 3, "samples_fine": 0}
    eager, compiled = (train.train(make(Config, **short, compile=flag)) for flag in (False, True))
    assert compiled["curves"]["train_psnr"] == pytest.approx(eager["curves"]["train_psnr"], abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "lego"], "--dataset lego: no such data set"),
        (["--preset", "lego"], "--preset lego: no such preset"),
        (["--method", "drtp"], "drtp reads the class of a sample"),
        (["--steps", "0"], "steps is 0; it must be above 0"),
        (["--epochs", "3"], "--epochs"),
        (["--width", "0"], "width is 0; it must be above 0"),
        (["--lr", "inf"], "lr is inf; it must be above 0, and finite"),
        (["--scene", ""], "--scene is empty"),
        (["--dataset", "blender", "--scene", ""], "--scene is empty"),
        (["--preset", ""], "--preset is empty"),
        (["--chunk", "0"], "--chunk 0: give at least 1"),
        (["--dataset", "blender", "--data-dir", "/no/such/folder"], "/no/such/folder: no such folder"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as leaving:
        command("nerf", Config, train.load, train.train, argv=arguments)
    complaint = capsys.readouterr().err
    assert leaving.value.code == 2
    assert message in complaint
    assert complaint.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_the_command_runs_and_prints_its_result_last(tmp_path):
    command = [
        sys.executable,
        "-m",
        "nerf.train",
        "--preset",
        "debug_dfa",
        "--steps",
        "2",
        "--out",
        str(tmp_path / "run"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    printed = json.loads(done.stdout.splitlines()[-1])
    assert (printed["task"], printed["dataset"], printed["method"]) == ("nerf", "synthetic", "dfa")
    assert printed["metrics"] == json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]


def test_alignment_is_one_for_backpropagation_and_measuring_it_changes_nothing():
    small = SMALL | {"preset": "small_bp", "size": 10, "width": 16, "depth": 2, "samples_coarse": 4, "samples_fine": 4}
    measured, plain = (train.train(make(Config, **small, test_views=1, alignment_every=n))["curves"] for n in (4, None))
    assert measured["alignment_step"] == [4, 8]
    aligned = {name: values for name, values in measured.items() if name.startswith("alignment ")}
    assert {"alignment coarse points.0", "alignment fine points.1", "alignment fine view_point"} <= aligned.keys()
    for values in aligned.values():
        assert values == pytest.approx([1.0, 1.0], abs=1e-5)
    assert {name: values for name, values in measured.items() if name in plain} == plain


def test_the_alignment_of_dfa_is_that_of_its_signal_with_the_gradient_of_the_loss():
    """At the last hidden layer before the colour, from the definition: the error times feedback, against autograd."""
    torch.manual_seed(0)
    shape = Architecture(depth=2, width=8, position_frequencies=2, view_frequencies=1)
    fields = Fields(shape, Rendering(samples_coarse=4, samples_fine=0, density="softplus"))
    attachments = train.attach_all(fields, Method.DFA, seed=0)
    rays, colours = scene_of_a_ball(40)
    found = network_alignment(fields, rays, colours)["alignment coarse view_point"]

    kept = {}
    network, attachment = fields.coarse, attachments["attachment of coarse"]
    handles = [network.register_forward_hook(lambda module, inputs, output: keep(kept, "error", output))]
    handles.append(network.view_point.register_forward_hook(lambda module, inputs, output: keep(kept, "point", output)))
    with attachment.backprop():
        (render_rays(fields, rays).colour - colours).square().mean().backward()
    for handle in handles:
        handle.remove()
    signal = kept["error"].grad @ attachment.effective_feedback()[:, : kept["point"].shape[1]]
    cosines = torch.nn.functional.cosine_similarity(signal, kept["point"].grad, dim=1)
    assert found == pytest.approx(cosines[kept["point"].grad.norm(dim=1) > 0].mean().item(), abs=1e-5)


def keep(kept, name, output):
    output.retain_grad()
    kept[name] = output


def test_a_decay_over_the_whole_length_is_not_prolonged(tmp_path):
    start(make(Config, **SMALL, out=tmp_path))
    with pytest.raises(UserError, match=r"a run of 9 steps, and the learning rate falls over all .* prolonged to 12"):
        start(make(Config, **SMALL | {"steps": 12}, out=tmp_path, resume=True))


def test_the_configuration_of_a_run_gives_the_options_of_another(tmp_path):
    config = make(Config, **SMALL, out=tmp_path)
    start(config)
    again = parse(Config, ["--config", str(tmp_path / "config.yaml"), "--width", "8", "--no-views"])
    assert again.preset == replace(config.preset, width=8, views=False)
