"""The model that a run trained, out of its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.run import read_config
from harness.run.checkpoint import read_checkpoint
from nlp.model.transformer import LanguageModel
from nlp.presets import Preset
from nlp.text.vocabulary import Vocabulary
from nlp.trainer import refuse_other_vocabulary

VOCABULARY = "vocabulary.json"  # in the run's folder: which text a token stands for


def load_run(folder: Path) -> tuple[LanguageModel, Vocabulary, Preset]:
    """The model of a run, finished or not, in evaluation mode on the CPU, with its vocabulary and preset.

    Its weights are the best so far, or the last where nothing has been validated.

    Raises:
        UserError: the folder is no run, its checkpoint is damaged, or its vocabulary is not the checkpoint's.
    """
    config, vocabulary, content = folder / "config.yaml", folder / VOCABULARY, None
    if config.is_file() and vocabulary.is_file():
        content = read_checkpoint(folder)
    if content is None:
        raise UserError(
            f"{folder} holds no run of nlp.train with a checkpoint. Give the folder that a training printed or was "
            "given by --out, after its first checkpoint."
        )
    another = "Give the folder of another run"
    try:
        preset = Preset.from_settings(read_config(folder, another))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{config} is not what a run of nlp.train writes ({error}). {another}.") from error
    words, state = read_vocabulary(vocabulary), content["state"]
    try:
        refuse_other_vocabulary(state["vocabulary"], words.fingerprint, f"in {vocabulary}")
        model = rebuilt(preset, words.size, state["best"]["weights"] or state["model"])
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError, MemoryError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UserError(f"the checkpoint in {folder} is not of the model in {config} ({reason}). {another}.") from error
    return model, words, preset


def read_vocabulary(path: Path) -> Vocabulary:
    """The vocabulary in a run's folder.

    Raises:
        UserError: the file is damaged.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}). Restore it from a copy.") from error
    return Vocabulary.from_json(text)


def rebuilt(preset: Preset, size: int, weights: dict[str, Any]) -> LanguageModel:
    """The model of a preset with these weights, in evaluation mode.

    Raises:
        RuntimeError: the weights are those of another model; found out before a model of impossible size is built.
    """
    blocks = {name.split(".")[1] for name in weights if name.startswith("blocks.")}
    if len(blocks) != preset.layers:
        raise RuntimeError(f"{preset.layers} layers, and the checkpoint has {len(blocks)}")
    model = LanguageModel(size, preset)
    model.load_state_dict(weights)
    return model.eval()
