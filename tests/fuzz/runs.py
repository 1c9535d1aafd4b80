"""What the project wrote itself and reads again: the folder of a run, and a table's results."""

import json
import random
from dataclasses import asdict
from pathlib import Path

import torch

from harness.files import write_whole
from harness.run import Run
from harness.tables import results
from nlp.model.transformer import LanguageModel
from nlp.presets import Preset
from nlp.saved import VOCABULARY, load_run
from nlp.text.vocabulary import train_vocabulary
from tests.fuzz.formats import Format
from tinydfa import Method


def make_run(folder: Path, rng: random.Random) -> Path:
    """A run of nlp.train after its first checkpoint."""
    words = train_vocabulary(rng.choice(["char", "bpe"]), ["the house is großes 42. "], 256, False)
    preset = Preset(method=Method.DFA, layers=1, d_model=8, d_ff=8, heads=2, chunk=4, vocabulary=words.kind)
    torch.manual_seed(rng.randrange(2**32))
    state = LanguageModel(words.size, preset).state_dict()
    settings = vars(preset) | {"feedback": asdict(preset.feedback), "dataset": "own", "seed": 0, "device": "cpu"}
    with Run("nlp", "own", settings, folder / "run") as run:
        run.log(1, train_loss=2.0)
        best = {"weights": rng.choice([{}, state]), "step": 1}
        run.save(1, vocabulary=words.fingerprint, model=state, best=best)
    write_whole(folder / "run" / VOCABULARY, words.to_json() + "\n")
    for board in (folder / "run").glob("events.*"):
        board.unlink()
    (folder / "run" / ".lock").unlink()
    return folder / "run"


def read_run(folder: Path) -> dict[str, object]:
    """The model as `nlp.sample` loads it, and what it says."""
    model, words, preset = load_run(folder)
    ids = torch.from_numpy(words.encode("the house").astype("int64"))[: preset.chunk]
    with torch.no_grad():
        logits = model(ids[None])
    assert logits.shape == (1, len(ids), words.size)
    return {"logits": logits, "preset": repr(preset), "words": words.fingerprint}


def make_results(folder: Path, rng: random.Random) -> Path:
    """Lines of a table."""
    path = folder / "table.jsonl"
    for seed in range(4):
        metrics = {"accuracy": rng.random(), "curve": [rng.random(), 1.5]}
        about = {"preset": "gcn_dfa", "dataset": "cora", "method": "dfa", "seed": seed, "scale": "paper"}
        results.append(path, about | {"result": {"metrics": metrics, "note": "größer"}})
    return path


def read_results(path: Path) -> list[dict[str, object]]:
    lines = results.read(path)
    for line in lines:
        assert line.keys() >= results.KEYS
        json.dumps(line)
    return lines


FORMATS = {
    "run": Format(make_run, read_run, ("run/config.yaml", f"run/{VOCABULARY}", "run/checkpoint.pt")),
    "results": Format(make_results, read_results),
}
