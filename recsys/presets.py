"""Hyper-parameters: those of the published Criteo experiments, and our own for data sets of a hundredth of its size.

Published: arXiv 2006.12878, code release, `recsys.py` and the scripts `reproduce_*.sh`; sizes from the same scripts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from harness.errors import UserError
from harness.presets import named_preset
from tinydfa import Method

# on: the method's own signal, at a feedback point; off: nothing; through: the gradient of the first hidden layers,
# which have a signal of their own
EmbeddingFeedback = Literal["on", "off", "through"]
MODELS = {"fm": "FM", "deepfm": "DeepFM", "dcn": "DCN", "autoint": "AutoInt", "afn": "AFN"}


@dataclass(frozen=True, kw_only=True)
class Preset:
    """All that decides a number; the data set, paths and devices belong to the command line."""

    model: str
    method: str = Method.BP
    lr: float  # Adam, constant, no weight decay
    dropout: float = 0.0  # after every hidden layer; in AutoInt of the attention too
    batch: int = 2048
    max_epochs: int = 15
    patience: int = 3  # epochs without a better validation AUC
    clip_norm: float | None = None  # of all gradients together
    embed: int = 16  # width of an embedding
    mlp: tuple[int, ...] = (400, 400, 400)
    cross_layers: int = 6  # dcn
    attention: int = 32  # autoint: width, shared by the heads
    heads: int = 2
    attention_layers: int = 3
    neurons: int = 1500  # afn: logarithmic ones
    linear_std: float = 1.0  # of the linear term's first weights; 1 is torchfm's
    embedding_feedback: EmbeddingFeedback = "on"  # what embeddings learn from the hidden layers that they enter
    sparse_embeddings: bool = False  # Adam on the rows of a batch only (SparseAdam)

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout is {self.dropout}; it must lie in [0, 1).")
        if self.lr <= 0 or self.batch < 2 or self.max_epochs < 1 or self.patience < 1:
            found = f"lr {self.lr}, batch {self.batch}, max_epochs {self.max_epochs}, patience {self.patience}"
            raise UserError(f"{found}: all must be above 0, and batch above 1.")
        if self.embedding_feedback not in get_args(EmbeddingFeedback):
            raise UserError(f"embedding_feedback is {self.embedding_feedback!r}; it must be on, off or through.")
        if self.attention % self.heads:
            raise UserError(f"attention is {self.attention} wide; {self.heads} heads must divide it.")


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
# Ours, for data sets of a million rows and less, on which the published steps are too few and too small: an epoch of
# Adult has 115 batches of 256, one of Criteo 18,000 of 2048. Widths that only cost time there are cut, and the linear
# term starts near zero, because rare categories keep what they start with.
SMALL_SIZES: dict[str, dict[str, Any]] = {
    "fm": {},
    "deepfm": {"embed": 10},
    "dcn": {"mlp": (400, 400), "clip_norm": 100.0},
    "autoint": {},
    "afn": {"embed": 10, "neurons": 100},
}
SMALL_LENGTH: dict[str, Any] = {"batch": 256, "max_epochs": 20, "linear_std": 0.01}
# By data set and model: bp, dfa, shallow. Of `RATES` the one with the best validation AUC, seed 0, on Adult and
# MovieLens-100K; of `TEACHER_GRID` on 100,000 rows of the teacher's log (synthetic): table `recsys-rates`. A preset
# whose row was not run to the end has the rate of an earlier choice.
LEARNING_RATES: dict[str, dict[str, tuple[float, ...]]] = {
    "adult": {
        "fm": (3e-3,),
        "deepfm": (3e-3, 3e-3, 1e-3),
        "dcn": (1e-4, 1e-3, 3e-3),
        "autoint": (3e-3, 1e-3, 3e-3),
        "afn": (3e-3, 3e-3, 3e-3),
    },
    "ml-100k": {
        "fm": (3e-3,),
        "deepfm": (1e-2, 1e-2, 1e-2),
        "dcn": (1e-2, 3e-3, 1e-3),
        "autoint": (3e-3, 3e-3, 3e-3),
        "afn": (3e-3, 1e-2, 3e-3),
    },
    "synthetic": {
        "fm": (3e-3,),
        "deepfm": (3e-3, 3e-3, 3e-3),
        "dcn": (1e-3, 1e-3, 3e-3),
        "autoint": (3e-3, 1e-3, 3e-3),
        "afn": (3e-3, 3e-3, 3e-3),
    },
}
# A million rows of the synthetic log. Of 1e-3 and 3e-3 the former is better for FM and DeepFM by backpropagation, and
# all others follow; shallow training keeps the rate of fewer rows, which was the largest tried.
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
# A user's table (--table) of a few thousand rows. Of 3e-3 and 1e-2 (DeepFM: also 1e-3, the worst for every method) the
# one with the better mean validation AUC on 5,000 rows of Adult and 5,000 of MovieLens-100K, seed 0, one split (DeepFM:
# two); bp and dfa were tried alike. Shallow training has DeepFM's rate everywhere. The batch was not searched.
OWN_RATES: dict[str, tuple[float, ...]] = {
    "fm": (3e-3,),
    "deepfm": (1e-2, 3e-3, 1e-2),
    "dcn": (3e-3, 3e-3, 1e-2),
    "autoint": (1e-2, 1e-2, 1e-2),
    "afn": (1e-2, 3e-3, 1e-2),
}
PRESETS |= small_presets("own", OWN_RATES, batch=128)


def check_method(model: str, method: str) -> None:
    """Raise `UserError` for a method that the model has no place for."""
    if model == "fm" and method is not Method.BP:
        raise UserError(
            f"--method {method}: FM has no hidden layer, so there is nothing to feed. Train it by bp, or choose "
            "another --model."
        )


def find_preset(*, model: str | None, method: str | None, dataset: str, name: str | None = None) -> Preset:
    """The preset called `name`, or the one of a model (deepfm if None), a method (dfa if None) and a data set.

    A data set without presets of its own has the published ones. Methods other than bp and shallow use DFA's.

    Raises:
        UserError: there is no such preset, model or method here, or the preset has another model or method.
    """
    if name is not None:
        return named_preset(PRESETS, name, model=model, method=method)
    model, method = model or "deepfm", method or Method.DFA
    if model not in MODELS:
        raise UserError(f"--model {model}: no such model. There are {', '.join(MODELS)}.")
    check_method(model, method)
    base = method if method in (Method.BP, Method.SHALLOW) else Method.DFA
    published = f"{model}_{base}"
    return replace(PRESETS.get(f"{published}_{dataset}", PUBLISHED[published]), method=method)
