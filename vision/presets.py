"""The published settings by name, collected from the studies, and what is trained where no name is given."""

from __future__ import annotations

from dataclasses import replace

from harness.errors import UserError
from harness.presets import named_preset
from tinydfa import Method
from vision.biotorch import presets as biotorch
from vision.drtp import presets as drtp
from vision.iacolippo import presets as iacolippo
from vision.preset import MODELS, Preset
from vision.principled import presets as principled
from vision.rates import presets as rates

PRESETS: dict[str, Preset] = {
    **drtp.PRESETS,
    **principled.PRESETS,
    **biotorch.PRESETS,
    **iacolippo.PRESETS,
    **rates.PRESETS,
}


def find_preset(
    *, name: str | None = None, model: str | None = None, method: str | None = None, dataset: str
) -> Preset:
    """The preset called `name`; without one, the published settings of a model on a data set.

    Args:
        name: Of a preset, or None.
        model: fc if None; a preset may not have another one.
        method: dfa if None; a preset may not have another one.
        dataset: Decides which published settings are the nearest.

    Raises:
        UserError: there is no such preset or model, or the preset has another model or method.
    """
    if name is None:
        method = method or Method.DFA
        nearest = PRESETS[_default("fc" if model is None else model, method, dataset)]
        small = dataset in ("digits", "synthetic")  # fewer images than some published settings hold out
        return replace(nearest, method=method, hold_out=0 if small else nearest.hold_out)
    return named_preset(PRESETS, name, model=model, method=method)


def _default(model: str, method: str, dataset: str) -> str:
    """The preset whose settings a model on a data set takes where none is named."""
    if model not in MODELS:
        raise UserError(f"--model {model}: no such model. There are {', '.join(MODELS)}.")
    nearest = "bp" if method is Method.BP else "dfa"
    data = "cifar" if dataset == "cifar10" else "mnist"
    match model:
        case "fc":
            return f"drtp_{data}_fc1-500_{nearest}"
        case "topology":
            return f"drtp_{data}_conv_{nearest}"
        case "cnn":
            return f"principled_cnn_tanh_{nearest}"
        case _:
            return f"biotorch_{model}_{nearest}"
