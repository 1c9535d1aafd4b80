"""How far DFA's hidden gradients point along backpropagation's while a node classifier trains (Table A.2).

    python -m graphs.alignment --model gcn --dataset cora

The training of `graphs.train` with ``--alignment-every 10``, and the paper's learning rate for DNAConv.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from graphs import train
from graphs.config import ALONE
from graphs.presets import PRESETS, Preset, find_preset
from harness.methods import slug

EVERY = 10  # epochs


@dataclass(frozen=True, kw_only=True)
class Config(train.Config):
    """Train a node classifier and measure the alignment of its gradients with backpropagation's."""

    alignment_every: int | None = EVERY
    """Epochs between measurements of the alignment with backpropagation."""

    @staticmethod
    def choose(preset: str | None = None, model: str | None = None, method: str | None = None) -> Preset:
        """The preset that these options mean; DNAConv has its own here."""
        if model == "dna" and preset is None:
            return replace(find_preset(model=model, method=method), lr=PRESETS["dna_alignment"].lr)
        return find_preset(name=preset, model=model, method=method)

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return f"alignment_{self.preset.model}_{slug(self.preset.method)}-{self.data_name}-{self.seed}"

    def settings(self) -> dict[str, Any]:
        """The settings that determine the run's numbers."""
        return {name: value for name, value in super().settings().items() if name != "alignment_every"}


def measure(config: Config) -> dict[str, Any]:
    """Train as `config` says, and measure; the result has the alignment's curves alone, and the test accuracy."""
    result = train.train(config)
    own = {"train_loss", "val_accuracy", "test_accuracy"}
    metrics = {name: value for name, value in result["metrics"].items() if "alignment" in name}
    metrics["test_accuracy"] = result["metrics"]["test_accuracy"]
    curves = {name: values for name, values in result["curves"].items() if name not in own}
    return result | {"metrics": metrics, "curves": curves}


if __name__ == "__main__":
    from harness.command import command

    command("graphs", Config, train.load, train.train, alone=ALONE)
