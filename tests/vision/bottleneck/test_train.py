"""The bottleneck: what its masks do to gradients, how alignment is measured, and what a run learns and reports."""

import copy
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness.command import run_command
from harness.errors import UserError
from harness.options import make
from harness.tables import RunContext
from harness.tables.aggregate import wanted_runs
from reproduce.execute import Job, Outcome, keep
from tinydfa import Feedback, Method, attach
from vision import training
from vision.bottleneck import train as bottleneck
from vision.bottleneck.figures import figures
from vision.bottleneck.model import MaskedLinear, alignments, bottleneck_net, mean_cosine
from vision.bottleneck.prealign import prealign
from vision.bottleneck.tables import BOTTLENECK
from vision.bottleneck.train import Config

ROOT = Path(__file__).resolve().parents[3]
SMALL = {"width": 48, "epochs": 30, "lr": 5e-3}


def batch(features=7, classes=3, samples=6):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(samples, features, generator=generator)
    return x, torch.randint(0, classes, (samples,), generator=generator)


def gradients(layer, x, g):
    x = x.clone().requires_grad_()
    layer.zero_grad()
    layer(x).backward(g)
    return x.grad, layer.weight.grad, layer.bias.grad


def twins(size, samples=6):
    torch.manual_seed(0)
    masked = MaskedLinear(7, 5, size, samples)
    plain = nn.Linear(7, 5)
    plain.load_state_dict({"weight": masked.weight, "bias": masked.bias})
    return masked, plain


def test_a_layer_of_full_size_has_exactly_the_gradients_of_a_linear_layer():
    masked, plain = twins(7)
    x, g = torch.randn(6, 7), torch.randn(6, 5)
    for ours, theirs in zip(gradients(masked, x, g), gradients(plain, x, g), strict=True):
        assert torch.equal(ours, theirs)


def test_every_gradient_is_multiplied_by_its_own_mask_and_the_output_by_none():
    masked, plain = twins(3, samples=8)
    x, g = torch.randn(6, 7), torch.randn(6, 5)  # fewer samples than there are masks for
    assert torch.equal(masked(x), plain(x))
    masks = (masked.input_mask[:6], masked.weight_mask, masked.bias_mask)
    for ours, theirs, mask in zip(gradients(masked, x, g), gradients(plain, x, g), masks, strict=True):
        assert torch.equal(ours, torch.where(mask, theirs, 0.0))
        assert 0 < mask.sum() < mask.numel()


def test_masks_keep_the_share_of_their_size_and_a_smaller_size_a_subset():
    small, large = MaskedLinear(200, 200, 20, 100), MaskedLinear(200, 200, 60, 100)
    for name in ("input_mask", "weight_mask", "reference_mask"):
        few, many = getattr(small, name), getattr(large, name)
        assert few.float().mean().item() == pytest.approx(0.1, abs=0.01)
        assert many.float().mean().item() == pytest.approx(0.3, abs=0.01)
        assert not (few & ~many).any()
    assert not torch.equal(small.input_mask, small.reference_mask)
    assert not torch.equal(small.input_mask, MaskedLinear(200, 200, 20, 100, seed=1).input_mask)


def test_masks_are_saved_with_the_model_and_draw_nothing_from_the_global_generator():
    first, second = MaskedLinear(7, 7, 3, 6, seed=0), MaskedLinear(7, 7, 3, 6, seed=1)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.weight_mask, second.weight_mask)
    weights = []
    for size in (3, 7):
        torch.manual_seed(4)
        weights.append(bottleneck_net(7, 3, 8, size, 6).top.weight)
    assert torch.equal(*weights)


@pytest.mark.parametrize("size", [0, 8, -1])
def test_sizes_outside_the_width_are_refused(size):
    with pytest.raises(UserError, match=f"a bottleneck of {size}: a layer 7 wide keeps 1 to 7 entries"):
        MaskedLinear(7, 5, size, 6)
    with pytest.raises(UserError, match=f"a bottleneck of {size}"):
        make(Config, keep=size, width=7)


def test_a_batch_larger_than_its_masks_is_refused_in_training_and_evaluated_without_them():
    layer = MaskedLinear(7, 5, 3, samples=6)
    with pytest.raises(UserError, match="a batch of 9 meets masks drawn for 6 samples"):
        layer(torch.randn(9, 7))
    with torch.no_grad():
        assert layer(torch.randn(9, 7)).shape == (9, 5)


def attached(width=8, size=4, features=7, classes=3, samples=6, method="dfa"):
    torch.manual_seed(0)
    model = bottleneck_net(features, classes, width, size, samples)
    feedback = Feedback(distribution="gaussian", scaling="point", error_sum=True, seed=2)
    return model, attach(model, method, feedback=feedback)


def test_the_first_layer_learns_through_the_masked_one_and_the_others_by_the_projected_error():
    model, attachment = attached()
    x, y = batch()
    F.cross_entropy(model(x), y).backward()
    with torch.no_grad():
        h1 = torch.tanh(model.first(x))
        h2 = torch.tanh(h1 @ model.middle.weight.T + model.middle.bias)
        h3 = torch.tanh(model.third(h2))
        error = model.top(h3).softmax(dim=1) - F.one_hot(y, 3)  # summed over the batch
        signal = error @ attachment.head.feedback_matrix / math.sqrt(3 * 8)
        delta3, delta2 = signal * (1 - h3**2), signal * (1 - h2**2)
        delta1 = delta2 @ model.middle.weight * model.middle.input_mask * (1 - h1**2)
    torch.testing.assert_close(model.first.weight.grad, delta1.T @ x)
    torch.testing.assert_close(model.middle.weight.grad, delta2.T @ h1 * model.middle.weight_mask)
    torch.testing.assert_close(model.middle.bias.grad, delta2.sum(dim=0) * model.middle.bias_mask)
    torch.testing.assert_close(model.third.weight.grad, delta3.T @ h2)
    torch.testing.assert_close(model.top.weight.grad, error.T @ h3 / 6)


def test_alignment_is_the_cosine_of_gradients_written_by_hand():
    model, attachment = attached()
    x, y = batch()
    found = alignments(model, attachment, x, y, F.cross_entropy)
    with torch.no_grad():
        h1 = torch.tanh(model.first(x))
        h2 = torch.tanh(h1 @ model.middle.weight.T + model.middle.bias)
        h3 = torch.tanh(model.third(h2))
        error = model.top(h3).softmax(dim=1) - F.one_hot(y, 3)
        signal = error @ attachment.head.feedback_matrix
        bp3 = error @ model.top.weight
        bp2 = bp3 * (1 - h3**2) @ model.third.weight
        bp1 = bp2 * (1 - h2**2) @ model.middle.weight
        dfa1 = signal * (1 - h2**2) @ model.middle.weight * model.middle.input_mask

    def cosine(a, b):
        return F.cosine_similarity(a, b, dim=1, eps=1e-12).mean().item()

    expected = {
        "1": cosine(dfa1, bp1 * model.middle.reference_mask),
        "2": cosine(signal, bp2),
        "3": cosine(signal, bp3),
        "1, same mask": cosine(dfa1, bp1 * model.middle.input_mask),
    }
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("size", [20, 50])
def test_separate_masks_shrink_the_first_alignment_to_their_share(size):
    x, y = batch(30, 10, samples=100)
    model, attachment = attached(width=100, size=100, features=30, classes=10, samples=100)
    prealign(model, attachment, x, y, F.cross_entropy)  # so that there is an alignment to shrink
    whole = alignments(model, attachment, x, y, F.cross_entropy)
    weights = {name: value for name, value in model.state_dict().items() if not name.endswith("_mask")}
    model, attachment = attached(width=100, size=size, features=30, classes=10, samples=100)
    model.load_state_dict(weights, strict=False)
    part = alignments(model, attachment, x, y, F.cross_entropy)
    assert whole["1"] == whole["1, same mask"]
    assert whole["1"] > 0.5
    assert part["1"] == pytest.approx(size / 100 * whole["1"], abs=0.03)
    assert part["1, same mask"] == pytest.approx(whole["1"], abs=0.05)
    assert part["2"] == whole["2"]


def test_measuring_alignment_changes_nothing():
    model, attachment = attached()
    before = copy.deepcopy(model.state_dict())
    alignments(model, attachment, *batch(), F.cross_entropy)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert attachment.method is Method.DFA
    assert not any(module._forward_hooks for module in model.modules())


def test_rows_of_zeros_count_as_no_agreement_unless_both_are():
    a = torch.tensor([[1e-30, 0.0], [0.0, 0.0], [1.0, 0.0]])
    b = torch.tensor([[1e-30, 0.0], [0.0, 0.0], [0.0, 0.0]])
    assert mean_cosine(a, b) == pytest.approx(0.5)
    assert mean_cosine(a[1:2], b[1:2]) == 0


def test_a_wider_bottleneck_learns_more_and_pre_alignment_aligns():
    def metrics(**options):
        return bottleneck.train(make(Config, **(SMALL | options)))["metrics"]

    long = {"lr": 0.01, "epochs": 20}
    narrow, wide, aligned = (metrics(**long, **options) for options in ({"keep": 1}, {}, {"init": "pai"}))
    assert narrow["train_accuracy"] + 0.03 < wide["train_accuracy"]
    assert wide["train_accuracy"] > 0.9
    assert aligned["alignment 2"] > wide["alignment 2"]
    assert aligned["alignment 3"] > 0.9


def test_backpropagation_is_the_reference_and_measures_no_alignment():
    metrics = bottleneck.train(make(Config, **(SMALL | {"method": Method.BP})))["metrics"]
    assert metrics["test_accuracy"] > 0.85
    assert not [name for name in metrics if name.startswith("alignment")]


def test_other_methods_and_data_without_classes_are_refused():
    with pytest.raises(UserError, match="--method fa: this experiment compares bp and dfa"):
        make(Config, method=Method.FA)
    with pytest.raises(UserError, match="--dataset drtp-regression is a regression"):
        bottleneck.train(make(Config, dataset="drtp-regression"))


def test_the_published_settings_are_the_defaults():
    preset = make(Config, dataset="cifar10").preset.training()
    assert (preset.hidden, preset.lr, preset.batch, preset.epochs) == ((800, 800, 800), 5e-4, 128, 50)
    assert (preset.optimizer, preset.loss, preset.drop_last, preset.precision) == ("sgd", "ce", True, "fp32")
    assert preset.feedback == Feedback(distribution="gaussian", scaling="point", error_sum=True)


def command(config):
    return run_command("vision", config, bottleneck.load, bottleneck.train)


class KilledError(Exception):
    pass


def test_a_resumed_run_ends_like_an_uninterrupted_one(tmp_path, monkeypatch, capsys):
    config = make(Config, width=32, keep=8, init="pai", epochs=7, checkpoint_every=3)
    whole = bottleneck.train(config)
    steps = iter(range(100))
    train_epoch = training.train_epoch

    def killed_in_the_fifth_epoch(*arguments):
        if next(steps) == 4:
            raise KilledError
        return train_epoch(*arguments)

    monkeypatch.setattr(training, "train_epoch", killed_in_the_fifth_epoch)
    with pytest.raises(KilledError):
        command(replace(config, out=tmp_path))
    monkeypatch.setattr(training, "train_epoch", train_epoch)
    torch.manual_seed(999)
    command(replace(config, out=tmp_path, resume=True))
    resumed = json.loads((tmp_path / "result.json").read_text())
    times = {"seconds_per_epoch"}
    assert {k: v for k, v in resumed["metrics"].items() if k not in times} == {
        k: v for k, v in whole["metrics"].items() if k not in times
    }
    assert resumed["curves"] == whole["curves"]
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["metrics"] == resumed["metrics"]


def test_a_wrong_size_ends_the_command_with_one_line_and_leaves_no_folder(tmp_path):
    command = [sys.executable, "-m", "vision.bottleneck", "--keep", "900", "--out", str(tmp_path / "run")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "a bottleneck of 900: a layer 800 wide keeps 1 to 800 entries" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_accuracies_and_alignments_of_a_row_come_from_one_run():
    assert len(wanted_runs(BOTTLENECK, 2)) == 2 * (14 + 14 + 1)


def test_a_run_answers_every_column_and_is_drawn(tmp_path):
    assert list(figures(tmp_path, RunContext())) == []
    chosen = ("bottleneck_191_std_dfa", "bottleneck_191_pai_dfa", "bottleneck_800_std_bp")
    for (preset, _, method, seed), cell in wanted_runs(BOTTLENECK, 1).items():
        if preset not in chosen:
            continue
        result = BOTTLENECK.run(replace(cell, dataset="synthetic"), seed, RunContext(scale="quick", epochs=3))
        wanted = {other.metric for other in BOTTLENECK.cells if other.key == preset}
        assert result["metrics"].keys() >= wanted
        assert result["method"] == method
        assert result["config"]["keep"] == (64 if "800" in preset else 15)  # of 64, as 191 of 800
        keep(BOTTLENECK, tmp_path, Outcome(Job("vision", "bottleneck", cell, seed, RunContext()), result=result))
    titles = [figure.title for figure in figures(tmp_path, RunContext())]
    assert titles == ["DFA through a bottleneck", "Alignment through a bottleneck, by epoch"]
