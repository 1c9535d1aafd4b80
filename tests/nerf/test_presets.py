"""Presets against what the papers and the release say."""

from dataclasses import replace

import pytest

from harness.errors import UserError
from nerf import published
from nerf.data import blender, llff
from nerf.field.network import Network
from nerf.presets import PRESETS, Preset, find_preset
from tinydfa import Method


@pytest.mark.parametrize(
    ("name", "steps", "lr", "rays", "noise"),
    [("synthetic_dfa", 500_000, 1e-4, 1024, 0.0), ("synthetic_bp", 500_000, 5e-4, 1024, 0.0)]
    + [(f"real_{method}", 200_000, 5e-4, 4096, 1.0) for method in ("bp", "dfa")],
)
def test_published_settings(name, steps, lr, rays, noise):
    preset = PRESETS[name]
    assert (preset.steps, preset.lr, preset.rays, preset.noise) == (steps, lr, rays, noise)
    assert (preset.samples_coarse, preset.samples_fine) == (64, 128)
    assert (preset.position_frequencies, preset.view_frequencies) == (10, 4)
    assert (preset.density, preset.size, preset.test_views, preset.skip_empty) == ("relu", None, None, False)


def test_the_networks_are_as_large_as_the_released_ones():
    for name in ("synthetic_dfa", "real_dfa", "synthetic_bp"):
        network = Network(PRESETS[name].architecture())
        assert sum(parameter.numel() for parameter in network.parameters()) == 84_548
    assert (PRESETS["synthetic_dfa_8x256"].depth, PRESETS["synthetic_dfa_8x256"].width) == (8, 256)
    assert (PRESETS["real_dfa_xl"].width, PRESETS["synthetic_dfa_xxl"].width) == (425, 512)
    assert PRESETS["real_dfa_xl"].rays == 4096


def test_the_last_learning_rates_are_those_in_the_released_checkpoints():
    for name, last in (("synthetic_dfa", 1.0000046e-05), ("real_dfa", 7.9245389e-05)):
        preset = PRESETS[name]
        assert preset.lr * preset.rate(preset.steps - 1) == pytest.approx(last, rel=1e-6)


def test_the_decay_stretches_with_the_steps():
    short = replace(PRESETS["real_dfa"], steps=1000)
    assert short.rate(0) == 1.0
    assert short.rate(1000) == pytest.approx(PRESETS["real_dfa"].rate(200_000)) == pytest.approx(10**-0.8)


def test_the_tiny_network_is_that_of_the_figure():
    preset = PRESETS["tiny_dfa"]
    shapes = [tuple(p.shape) for p in Network(preset.architecture()).parameters() if p.dim() == 2]
    assert shapes == [(128, 63), (128, 128), (4, 128)]
    assert (preset.steps, preset.lr, preset.samples_coarse, preset.samples_fine) == (5000, 5e-3, 32, 0)
    assert preset.rate(5000) == pytest.approx(1.0)


def test_the_data_set_decides_which_settings_are_taken():
    assert find_preset(method=Method.BP, dataset="blender") == PRESETS["synthetic_bp"]
    assert find_preset(dataset="llff") == PRESETS["real_dfa"]
    assert find_preset(dataset="synthetic") == PRESETS["small_dfa"]
    assert find_preset(method=Method.SHALLOW, dataset="blender") == PRESETS["synthetic_shallow"]
    assert find_preset(method=Method.FA, dataset="blender") == replace(PRESETS["synthetic_dfa"], method=Method.FA)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "lego"}, "--preset lego: no such preset. The nearest of"),
        ({"name": "small_bp", "method": Method.DFA}, "--preset small_bp trains by bp and --method says dfa"),
        ({"method": Method.DRTP}, "drtp reads the class of a sample, and a point in space has none"),
    ],
)
def test_impossible_choices_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        find_preset(**arguments, dataset="blender")


@pytest.mark.parametrize("name", ["depth", "width", "rays", "lr", "steps", "samples_coarse", "decay", "size"])
def test_what_must_be_positive_is(name):
    with pytest.raises(UserError, match=f"{name} is 0; it must be above 0"):
        Preset(method=Method.BP, **{name: 0})


def test_finer_samples_need_coarse_ones_to_lie_between():
    with pytest.raises(UserError, match="samples_coarse is 2; finer samples"):
        Preset(method=Method.BP, samples_coarse=2)
    assert Preset(method=Method.BP, samples_coarse=2, samples_fine=0).samples_coarse == 2


def test_published_means_are_those_of_the_scenes():
    columns = {"bp": 0, "SRN": 1, "NV": 2, "LLFF": 3}
    for part, scenes in (("synthetic", blender.NAMES), ("real", llff.NAMES)):
        for name, number in published.TABLE_1[part].items():
            by_dfa = name == "dfa"
            values = [published.DFA_BY_SCENE[s] if by_dfa else published.BY_SCENE[s][columns[name]] for s in scenes]
            assert sum(values) / len(values) == pytest.approx(number, abs=0.0051)
    assert set(published.BY_SCENE) == set(published.DFA_BY_SCENE) == {*blender.NAMES, *llff.NAMES}
