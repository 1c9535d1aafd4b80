"""The settings that decide a run's numbers, and named presets: the rows of Table 5, published and small.

Published: arXiv 2006.12878, code release, `run_experiments.sh`, `train_lm.py`, `transformer.py`, on WikiText-103.
Small: the same rows for minutes on a CPU in place of days on a GPU; only sizes, length and learning rates differ.
The release has no command for the shallow baseline; ours has the settings of DFA's best row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from harness.config import Method as MethodOption
from harness.errors import UserError
from harness.methods import named, rule_of
from harness.options import Fixed
from harness.presets import named_preset
from nlp.model.attention import PATTERNS
from tinydfa import Feedback, Method

PAPER_DATA = ("wikitext-103",)  # where the published settings hold if none are named; elsewhere the small ones do


@dataclass(frozen=True, kw_only=True)
class Preset:
    """All that decides a number. Its fields are options; the text, paths and devices are those of the command."""

    method: MethodOption
    granularity: Literal["macro", "micro"] = "macro"
    """A feedback point after each block (macro), or three a block (micro)."""
    points_embedding: bool = False
    """One more feedback point after the embedding."""
    error_at: Literal["hidden", "norm", "logits"] = "hidden"
    """Take the error below the vocabulary projection (hidden, as published), below the last norm, or above both."""
    last_block: Literal["projected", "error"] = "projected"
    """What the last block gets where the error is taken right above it: its projection, as published, or itself."""
    feedback: Fixed[Feedback] = field(default_factory=Feedback)  # its seed is the run's
    attention: Literal["standard", "fixed", "dense", "random"] = "standard"
    """How a position takes from those before it."""
    layers: int = 6
    """Blocks."""
    d_model: int = 512
    """Width of the model."""
    d_ff: int = 2048
    """Width of the hidden layer of a block."""
    heads: int = 8
    """Attention heads."""
    dropout: float = 0.1
    """Share of activations and attention weights dropped."""
    tied: bool = False
    """Use the embedding's weights in the decoder."""
    vocabulary: Literal["bpe", "char"] = "bpe"
    """Tokens: byte pairs, or characters."""
    vocabulary_size: int = 32_000
    """Tokens of the vocabulary, at most."""
    lower: bool = True
    """Whether the text is turned into lower case."""
    chunk: int = 128
    """Tokens of a sequence."""
    batch: int = 64
    """Sequences of a step, over all processes."""
    schedule: Literal["noam", "adam", "onecycle", "radam", "plateau"] = "noam"
    """How the learning rate changes; radam is constant, with another optimizer."""
    lr: float = 1.0
    """Learning rate: constant with adam and radam, the first of plateau, the highest of onecycle, a factor of noam."""
    warmup: int = 4000
    """Steps of noam's rising learning rate."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Adam's betas; its epsilon is 1e-9."""
    plateau_factor: float = 0.2
    """What plateau multiplies the learning rate by."""
    plateau_patience: int = 1
    """Validations without a better perplexity before plateau does so."""
    clip_norm: float = 0.5
    """Largest norm of all gradients together."""
    epochs: int = 100
    """Passes over the training text."""
    steps: int | None = None
    """Optimiser steps, at most; as many as the epochs have if None."""
    validate_every: int | None = None
    """Steps between validations; once an epoch if None."""
    patience: int = 5
    """Validations without a better perplexity before training stops."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "method", named(self.method))
        for what, known in choices().items():
            if getattr(self, what) not in known:
                raise UserError(f"no {what} is called '{getattr(self, what)}'. There are {', '.join(known)}.")
        for name in ("layers", "d_model", "d_ff", "heads", "vocabulary_size", "chunk", "batch", "warmup", "epochs"):
            _refuse_below_1(name, getattr(self, name))
        for name in ("steps", "validate_every", "patience"):
            _refuse_below_1(name, getattr(self, name))
        if not 0 < self.lr < math.inf:
            raise UserError(f"lr is {self.lr}; it must be above 0, and finite.")
        if not self.clip_norm > 0:
            raise UserError(f"clip_norm is {self.clip_norm}; it must be above 0.")
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout is {self.dropout}; give a share from 0 to below 1.")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"betas are {self.betas}; give two numbers from 0 to below 1, such as 0.9 0.999.")
        self._check_widths()
        if rule_of(self.method).needs_target and self.error_at != "logits":
            raise UserError(
                f"{self.method} reads the next token, which is as wide as the vocabulary, and the error is taken "
                "below the vocabulary. Use --error-at logits, or another method."
            )

    def by_epochs(self, epochs: int) -> Preset:
        """The same for so many epochs, however many steps they have."""
        return replace(self, epochs=epochs, steps=None)

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Preset:
        """The preset of a run, from its `config.yaml`."""
        known = {field.name for field in fields(cls)}
        mine = {name: value for name, value in settings.items() if name in known}
        said = {
            name: value for name, value in dict(mine["feedback"]).items() if value is not None
        }  # older runs have more
        return cls(**mine | {"feedback": Feedback(**said), "betas": tuple(mine["betas"])})

    def _check_widths(self) -> None:
        parts = PATTERNS if self.attention == "fixed" else self.heads
        if self.d_model % parts or self.d_model % 2:
            what = f"{parts} patterns of fixed attention" if self.attention == "fixed" else f"{parts} heads"
            raise UserError(
                f"d_model is {self.d_model}, which cannot be shared among {what} and split in sines and cosines. "
                f"Choose an even multiple of {parts}."
            )


@cache
def choices() -> dict[str, tuple[str, ...]]:
    """The values that a field of a preset may have, where these are few."""
    hints = get_type_hints(Preset)
    return {name: get_args(hint) for name, hint in hints.items() if get_origin(hint) is Literal}


def _refuse_below_1(name: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise UserError(f"{name} is {value}; give at least 1.")


# Options that do something for some values of another field alone.
NEEDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "heads": ("attention", ("standard", "dense", "random")),
    "vocabulary_size": ("vocabulary", ("bpe",)),
    "warmup": ("schedule", ("noam",)),
    "plateau_factor": ("schedule", ("plateau",)),
    "plateau_patience": ("schedule", ("plateau",)),
    "last_block": ("error_at", ("hidden", "norm")),
}

bp = Preset(method=Method.BP)
macro = replace(bp, method=Method.DFA)
macro_adam = replace(macro, schedule="adam", lr=5e-5)
macro_beta2 = replace(macro_adam, betas=(0.9, 0.999))
macro_schedule = replace(macro_beta2, schedule="plateau", lr=1e-4)

MACRO = {
    "macro": macro,
    "macro_adam": macro_adam,
    "macro_beta2": macro_beta2,
    "macro_schedule": macro_schedule,
}
PUBLISHED: dict[str, Preset] = {
    "bp": bp,
    "bp_beta2": replace(bp, betas=(0.9, 0.999)),
    **MACRO,
    **{name.replace("macro", "micro"): replace(preset, granularity="micro") for name, preset in MACRO.items()},
    "shallow": replace(macro_schedule, method=Method.SHALLOW),
}

SMALL_SIZES: dict[str, Any] = {
    "layers": 4,
    "d_model": 128,
    "d_ff": 512,
    "heads": 4,
    "vocabulary_size": 4000,
    "chunk": 64,
    "batch": 16,
    "steps": 1000,
    "validate_every": 200,
}
# By row; of noam the factor and the warm-up steps. With so few steps every row needs another rate than published: that
# of its grid with the lowest validation perplexity (tables `nlp-rates` and `nlp-ladder-rates`). The perplexity falls
# to the end, so that plateau would never lower the rate: here the schedule is one cycle.
SMALL_RATES: dict[str, dict[str, Any]] = {
    "bp": {"lr": 0.5, "warmup": 200},
    "bp_beta2": {"lr": 0.5, "warmup": 200},
    "macro": {"lr": 0.25, "warmup": 200},
    "macro_adam": {"lr": 1e-3},
    "macro_beta2": {"lr": 1e-3},
    "macro_schedule": {"schedule": "onecycle", "lr": 2e-3},
    "micro": {"lr": 0.25, "warmup": 200},
    "micro_adam": {"lr": 1e-3},
    "micro_beta2": {"lr": 1e-3},
    "micro_schedule": {"schedule": "onecycle", "lr": 2e-3},
    "shallow": {"schedule": "onecycle", "lr": 1e-2},
}
SMALL: dict[str, Preset] = {
    f"small_{name}": replace(preset, **SMALL_SIZES, **SMALL_RATES[name]) for name, preset in PUBLISHED.items()
}
# Ours: one cycle of the learning rate, no dropout and, for DFA, the error itself at the last block. Each has the rate
# of `ONE_CYCLE_RATES` with the lowest validation perplexity.
FITTED = "fitted(exact_every=50)"  # two of a hundred passes are backpropagation's
OURS_MACRO = replace(SMALL["small_macro_schedule"], last_block="error", lr=3e-3, dropout=0.0)
OURS: dict[str, Preset] = {
    "small_bp_ours": replace(SMALL["small_bp_beta2"], schedule="onecycle", lr=3e-3, dropout=0.0),
    "small_ours": OURS_MACRO,
    "small_micro_ours": replace(OURS_MACRO, granularity="micro", lr=2e-3),
    "small_fitted_ours": replace(OURS_MACRO, method=FITTED),
    "small_fdfa_ours": replace(OURS_MACRO, method="fdfa"),
    "small_micro_fitted_ours": replace(OURS_MACRO, granularity="micro", method=FITTED),
}
# Looks that follow one another closely at first and then come as rarely as the old fit allows; all else as above.
SELDOM = "fitted(exact_every=5,adapt=0.5,exact_between=(5,1000),steady=True)"
SELDOM_FITTED: dict[str, Preset] = {
    "small_macro_seldom": replace(OURS["small_fitted_ours"], method=SELDOM),
    "small_micro_seldom": replace(OURS["small_micro_fitted_ours"], method=SELDOM),
}
# The error is taken below the last norm, whose backward pass is then exact for all; else as in the rows called ours.
BELOW_NORM: dict[str, Preset] = {
    name: replace(preset, error_at="norm")
    for name, preset in {
        "small_norm": OURS_MACRO,
        "small_fitted_norm": OURS["small_fitted_ours"],
        "small_fdfa_norm": OURS["small_fdfa_ours"],
        "small_micro_norm": OURS["small_micro_ours"],
        "small_micro_fitted_norm": OURS["small_micro_fitted_ours"],
        "small_macro_seldom_norm": SELDOM_FITTED["small_macro_seldom"],
        "small_micro_seldom_norm": SELDOM_FITTED["small_micro_seldom"],
        "small_micro_fdfa_norm": replace(OURS["small_micro_fitted_ours"], method="fdfa"),
    }.items()
}
# Ablations of ours: one change taken back at a time.
TAKEN_BACK: dict[str, dict[str, Any]] = {
    "projected": {"last_block": "projected"},
    "dropout": {"dropout": 0.1},
    "projected_dropout": {"last_block": "projected", "dropout": 0.1},
}
GAP_RATE = 2e-3  # the best of micro, and near the best of macro; a projected last block diverges at macro's own
GAP: dict[str, Preset] = {
    "small_ours_gap": replace(OURS_MACRO, lr=GAP_RATE),
    **{
        f"{name}_{what}": replace(OURS[name], lr=GAP_RATE, **change)
        for name in ("small_ours", "small_micro_ours")
        for what, change in TAKEN_BACK.items()
    },
    "small_shallow_no_dropout": replace(SMALL["small_shallow"], dropout=0.0, lr=1e-2),
}
# One grid of learning rates, the same for backpropagation and for every other row, seed 0. One cycle needs all of its
# steps (table `nlp-rates`); other schedules are compared after 300 (`nlp-ladder-rates`).
ONE_CYCLE_RATES = (1e-3, 2e-3, 3e-3, 4e-3, 6e-3, 1e-2)
LADDER_RATES = {"noam": (0.25, 0.5, 1.0, 2.0, 4.0), "adam": (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3)}
LADDER_STEPS = 300


def _rates() -> dict[str, dict[str, Preset]]:
    """By small row: its preset at every rate of its grid, by a name of its own."""
    found: dict[str, dict[str, Preset]] = {}
    for name, preset in (SMALL | OURS | GAP).items():
        one_cycle = preset.schedule == "onecycle"
        if name in GAP and name != "small_shallow_no_dropout":
            continue  # an ablation keeps the rate of what it is compared with
        steps = preset.steps if one_cycle else LADDER_STEPS
        rates = ONE_CYCLE_RATES if one_cycle else LADDER_RATES[preset.schedule]
        found[name] = {
            f"{name}_lr-{rate:g}": replace(preset, lr=rate, steps=steps, validate_every=steps) for rate in rates
        }
    return found


TRIED: dict[str, dict[str, Preset]] = _rates()
PRESETS: dict[str, Preset] = PUBLISHED | SMALL | OURS | SELDOM_FITTED | BELOW_NORM | GAP
PRESETS |= {tried: preset for presets in TRIED.values() for tried, preset in presets.items()}


def find_preset(name: str | None, granularity: str | None, method: str | None, dataset: str) -> Preset:
    """The preset called `name`; without one, the best published row of a method, small unless the text is the paper's.

    Args:
        name: Of a preset, or None.
        granularity: macro if None; a preset may not have another one.
        method: dfa if None; a preset may not have another one. Methods other than bp and shallow use DFA's settings.
        dataset: Decides between small and published settings.

    Raises:
        UserError: there is no such preset, or it has another method or granularity.
    """
    if name is not None:
        return named_preset(PRESETS, name, method=method, granularity=granularity)
    granularity, method = granularity or "macro", named(method or Method.DFA)
    if granularity not in choices()["granularity"]:
        raise UserError(f"--granularity {granularity}: choose macro or micro.")
    row = {"bp": "bp", "shallow": "shallow"}.get(method, f"{granularity}_schedule")
    preset = PUBLISHED[row] if dataset in PAPER_DATA else SMALL[f"small_{row}"]
    error_at = "logits" if rule_of(method).needs_target else preset.error_at
    settings: dict[str, Any] = {"method": method, "granularity": granularity, "error_at": error_at}
    return replace(preset, **settings)
