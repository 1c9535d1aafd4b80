"""Presets: the published settings, their small siblings, and what the command makes of its arguments."""

import math
from dataclasses import asdict

import pytest

from harness.errors import UserError
from harness.options import make, parse
from nlp.config import Config
from nlp.presets import PRESETS, PUBLISHED, SMALL, Preset, find_preset
from tinydfa import Method

SIZES = {"layers", "d_model", "d_ff", "heads", "vocabulary_size", "chunk", "batch"}
LENGTH_AND_RATES = {"steps", "validate_every", "lr", "warmup"}


def test_rows_of_table_5_are_those_of_the_release():
    found = {
        name: (p.method.value, p.granularity, p.schedule, p.lr, p.betas[1])
        for name, p in PUBLISHED.items()
        if name != "shallow"
    }
    assert found == {
        "bp": ("bp", "macro", "noam", 1.0, 0.98),
        "bp_beta2": ("bp", "macro", "noam", 1.0, 0.999),
        "macro": ("dfa", "macro", "noam", 1.0, 0.98),
        "macro_adam": ("dfa", "macro", "adam", 5e-5, 0.98),
        "macro_beta2": ("dfa", "macro", "adam", 5e-5, 0.999),
        "macro_schedule": ("dfa", "macro", "plateau", 1e-4, 0.999),
        "micro": ("dfa", "micro", "noam", 1.0, 0.98),
        "micro_adam": ("dfa", "micro", "adam", 5e-5, 0.98),
        "micro_beta2": ("dfa", "micro", "adam", 5e-5, 0.999),
        "micro_schedule": ("dfa", "micro", "plateau", 1e-4, 0.999),
    }
    shared = {
        (
            (p.layers, p.d_model, p.d_ff, p.heads, p.dropout, p.tied, p.attention),
            (p.vocabulary, p.vocabulary_size, p.lower, p.chunk, p.batch),
            (p.warmup, p.clip_norm, p.epochs, p.steps, p.validate_every, p.patience),
            (p.plateau_factor, p.plateau_patience, p.error_at, p.last_block, p.points_embedding),
        )
        for p in PUBLISHED.values()
    }
    assert shared == {
        (
            (6, 512, 2048, 8, 0.1, False, "standard"),
            ("bpe", 32_000, True, 128, 64),
            (4000, 0.5, 100, None, None, 5),
            (0.2, 1, "hidden", "projected", False),
        )
    }


def test_small_presets_differ_from_the_published_ones_in_size_length_and_rates_and_wait_for_no_plateau():
    for name, preset in PUBLISHED.items():
        small = asdict(SMALL[f"small_{name}"])
        changed = {field for field, value in asdict(preset).items() if small[field] != value}
        one_cycle = {"schedule"} if preset.schedule == "plateau" else set()
        assert changed <= SIZES | LENGTH_AND_RATES | one_cycle
        assert changed >= SIZES


def test_every_preset_survives_its_own_settings():
    for preset in PRESETS.values():
        assert Preset.from_settings(asdict(preset) | {"dataset": "docs", "betas": list(preset.betas)}) == preset


def test_a_run_of_an_earlier_version_keeps_its_settings():
    """Its feedback had an option more, which was left at None unless the method was tdfa."""
    preset = PRESETS["small_ours"]
    settings = asdict(preset)
    assert Preset.from_settings(settings | {"feedback": settings["feedback"] | {"threshold": None}}) == preset


def test_without_a_name_the_best_row_is_taken_small_unless_the_text_is_the_papers():
    assert find_preset(None, "micro", Method.DFA, "docs") == SMALL["small_micro_schedule"]
    assert find_preset(None, None, None, "wikitext-103") == PUBLISHED["macro_schedule"]
    assert find_preset(None, None, Method.BP, "wikitext-103") == PUBLISHED["bp"]
    assert find_preset(None, "macro", Method.SHALLOW, "docs") == SMALL["small_shallow"]
    drtp = find_preset(None, "micro", Method.DRTP, "docs")
    assert (drtp.method, drtp.granularity, drtp.error_at) == (Method.DRTP, "micro", "logits")


def test_options_change_the_preset_and_those_left_out_do_not():
    words = "--preset small_macro_adam --layers 2 --betas 0.8 0.9 --tied --steps 7"
    preset = parse(Config, words.split()).preset
    expected = asdict(SMALL["small_macro_adam"]) | {"layers": 2, "betas": (0.8, 0.9), "tied": True, "steps": 7}
    assert asdict(preset) == expected


def test_epochs_alone_are_not_cut_short_by_the_presets_steps():
    for words, steps in (("--epochs 3", None), ("--epochs 3 --steps 50", 50), ("", 1000)):
        assert parse(Config, words.split()).preset.steps == steps


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "macro_xyz"}, "--preset macro_xyz: no such preset"),
        ({"preset": "bp", "method": Method.DFA}, "--preset bp trains by bp and --method says dfa"),
        ({"preset": "micro", "granularity": "macro"}, "--preset micro has granularity micro and --granularity says"),
        ({"heads": 3}, "d_model is 128, which cannot be shared among 3 heads"),
        ({"attention": "fixed", "d_model": 6}, "shared among 4 patterns of fixed attention"),
        ({"attention": "soft"}, "no attention is called 'soft'. There are standard, fixed, dense, random"),
        ({"schedule": "cosine"}, "no schedule is called 'cosine'"),
        ({"dropout": 1.0}, "dropout is 1.0; give a share"),
        ({"lr": 0.0}, "lr is 0.0; it must be above 0"),
        ({"lr": math.inf}, "lr is inf; it must be above 0, and finite"),
        ({"betas": (0.9, 1.0)}, r"betas are \(0.9, 1.0\); give two numbers"),
        ({"layers": 0}, "layers is 0; give at least 1"),
        ({"steps": 0}, "steps is 0; give at least 1"),
        ({"method": Method.DRTP, "error_at": "hidden"}, "Use --error-at logits, or another method"),
        ({"alignment_every": 0}, "--alignment-every 0: give at least 1"),
    ],
)
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        make(Config, **options)
