"""Hyper-parameters: those of the published Criteo experiments, and our own for data sets a hundredth of its size.

Published: arXiv 2006.12878, code release, `recsys.py` and the scripts `reproduce_*.sh`; sizes from the same scripts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from harness.errors import UserError
from harness.methods import named
from harness.presets import named_preset
from recsys.preset import MODELS, Preset
from tinydfa import Method

fm_bp = Preset(model="fm", lr=1e-4)

deepfm_bp = Preset(model="deepfm", lr=3e-4, dropout=0.5, max_epochs=30, patience=5, embed=10)
deepfm_dfa = replace(deepfm_bp, method=Method.DFA, lr=5e-5, embedding_feedback="off")
deepfm_shallow = replace(deepfm_dfa, method=Method.SHALLOW, lr=1e-4, dropout=0.1)

dcn_bp = Preset(model="dcn", lr=2e-4, batch=512, clip_norm=100.0, mlp=(1024, 1024))
dcn_dfa = replace(dcn_bp, method=Method.DFA, lr=5e-5)
dcn_shallow = replace(dcn_dfa, method=Method.SHALLOW, lr=1e-3, max_epochs=30, patience=5, batch=2048)

autoint_bp = Preset(model="autoint", lr=1e-4)
autoint_dfa = replace(autoint_bp, method=Method.DFA, lr=5e-5)
autoint_shallow = replace(autoint_dfa, method=Method.SHALLOW, lr=4e-4, dropout=0.5, max_epochs=30, patience=5)

afn_bp = Preset(model="afn", lr=4e-4, dropout=0.3, embed=10)
afn_dfa = replace(afn_bp, method=Method.DFA, lr=3e-4, dropout=0.0, embedding_feedback="off")
afn_shallow = replace(afn_dfa, method=Method.SHALLOW, lr=4e-4, max_epochs=30, patience=5)

PUBLISHED = {
    "fm_bp": fm_bp,
    "deepfm_bp": deepfm_bp,
    "deepfm_dfa": deepfm_dfa,
    "deepfm_shallow": deepfm_shallow,
    "dcn_bp": dcn_bp,
    "dcn_dfa": dcn_dfa,
    "dcn_shallow": dcn_shallow,
    "autoint_bp": autoint_bp,
    "autoint_dfa": autoint_dfa,
    "autoint_shallow": autoint_shallow,
    "afn_bp": afn_bp,
    "afn_dfa": afn_dfa,
    "afn_shallow": afn_shallow,
}
# Ours, for data sets of at most a million rows, on which the published settings take too few and too small steps: an
# epoch of Adult has 115 batches of 256 rows, one of Criteo 18,000 of 2048. Widths that only cost time there are
# reduced. The linear term starts near zero, because rare categories keep their initial weights.
SMALL_SIZES: dict[str, dict[str, Any]] = {
    "fm": {},
    "deepfm": {"embed": 10},
    "dcn": {"mlp": (400, 400), "clip_norm": 100.0},
    "autoint": {},
    "afn": {"embed": 10, "neurons": 100},
}
SMALL_LENGTH: dict[str, Any] = {"batch": 256, "max_epochs": 20, "linear_std": 0.01}
# By data set and model, for bp, dfa and shallow: the rate with the best validation AUC, seed 0, of `RATES` on Adult and
# MovieLens-100K, of `TEACHER_GRID` on 100,000 rows of the teacher's log (synthetic). See table `recsys-rates`.
LEARNING_RATES: dict[str, dict[str, tuple[float, ...]]] = {
    "adult": {
        "fm": (3e-3,),
        "deepfm": (1e-2, 1e-2, 1e-3),
        "dcn": (1e-4, 1e-3, 3e-3),
        "autoint": (1e-2, 3e-3, 3e-3),
        "afn": (1e-2, 1e-2, 3e-3),
    },
    "ml-100k": {
        "fm": (3e-3,),
        "deepfm": (1e-2, 1e-2, 1e-2),
        "dcn": (1e-2, 1e-3, 1e-3),
        "autoint": (1e-2, 1e-3, 3e-3),
        "afn": (1e-2, 1e-2, 3e-3),
    },
    "synthetic": {
        "fm": (1e-3,),
        "deepfm": (1e-3, 1e-3, 1e-3),
        "dcn": (1e-3, 3e-4, 3e-3),
        "autoint": (1e-3, 1e-3, 3e-4),
        "afn": (1e-3, 3e-3, 3e-4),
    },
}
# A million rows of the synthetic log. For FM and DeepFM by backpropagation, 1e-3 is better than 3e-3; the others take
# the same rate. Shallow training keeps its rate for fewer rows, the largest that was tried.
TEACHER: dict[str, Any] = {"batch": 1024, "max_epochs": 2, "patience": 2}
TEACHER_RATES: dict[str, tuple[float, ...]] = {
    "fm": (1e-3,),
    "deepfm": (1e-3, 1e-3, 3e-3),
    "dcn": (1e-3, 1e-3, 3e-3),
    "autoint": (1e-3, 1e-3, 3e-3),
    "afn": (1e-3, 1e-3, 3e-3),
}
RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
TEACHER_GRID = (3e-4, 1e-3, 3e-3)


def small_presets(dataset: str, rates: Mapping[str, tuple[float, ...]], **changes: Any) -> dict[str, Preset]:
    """The presets of a small data set, by name."""
    found = {}
    for model, of_model in rates.items():
        for method, lr in zip((Method.BP, Method.DFA, Method.SHALLOW), of_model, strict=False):
            if f"{model}_{method.value}" not in PUBLISHED:
                continue  # FM has no hidden layer
            fed = PUBLISHED[f"{model}_{method.value}"].embedding_feedback
            sizes = SMALL_SIZES[model] | SMALL_LENGTH | {"embedding_feedback": fed} | changes
            found[f"{model}_{method.value}_{dataset}"] = Preset(model=model, method=method, lr=lr, **sizes)
    return found


PRESETS: dict[str, Preset] = dict(PUBLISHED)
GRIDS = {"adult": RATES, "ml-100k": RATES, "synthetic": TEACHER_GRID}  # of learning rates, by data set
TRIED: dict[str, dict[str, Preset]] = {}  # by data set, and there by name: its presets at every rate of its grid
for dataset_, rates_ in LEARNING_RATES.items():
    ours_ = small_presets(dataset_, rates_)
    TRIED[dataset_] = {
        f"{name}_lr-{rate:g}": replace(preset, lr=rate) for name, preset in ours_.items() for rate in GRIDS[dataset_]
    }
    PRESETS |= ours_ | TRIED[dataset_]
PRESETS |= small_presets("teacher", TEACHER_RATES, **TEACHER)
# A user's table (--table) of a few thousand rows: of 3e-3 and 1e-2 (for DeepFM also 1e-3, the worst for every method)
# the rate with the better mean validation AUC on 5,000 rows of Adult and 5,000 of MovieLens-100K, seed 0, one split
# (DeepFM: two), for bp and dfa alike. Shallow training has DeepFM's rate for all models. The batch size was not tuned.
OWN_RATES: dict[str, tuple[float, ...]] = {
    "fm": (3e-3,),
    "deepfm": (1e-2, 3e-3, 1e-2),
    "dcn": (3e-3, 3e-3, 1e-2),
    "autoint": (1e-2, 1e-2, 1e-2),
    "afn": (1e-2, 3e-3, 1e-2),
}
PRESETS |= small_presets("own", OWN_RATES, batch=128)


def check_method(model: str, method: str) -> None:
    """Raise `UserError` for a method that cannot train the model."""
    if model == "fm" and method is not Method.BP:
        raise UserError(
            f"--method {method}: FM has no hidden layer, so there is nothing for the method to train. Use bp, or "
            "choose another --model."
        )


def find_preset(*, model: str | None, method: str | None, dataset: str, name: str | None = None) -> Preset:
    """The preset called `name`, or the one of a model (deepfm if None), a method (dfa if None) and a data set.

    A data set without presets has the published ones. Methods other than bp and shallow have DFA's presets.

    Raises:
        UserError: there is no such preset, model or method here, or the preset has another model or method.
    """
    if name is not None:
        return named_preset(PRESETS, name, model=model, method=method)
    model, method = model or "deepfm", named(method or Method.DFA)
    if model not in MODELS:
        raise UserError(f"--model {model}: no such model. There are {', '.join(MODELS)}.")
    check_method(model, method)
    base = method if method in (Method.BP, Method.SHALLOW) else Method.DFA
    published = f"{model}_{base}"
    return replace(PRESETS.get(f"{published}_{dataset}", PUBLISHED[published]), method=method)
