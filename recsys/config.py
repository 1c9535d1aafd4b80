"""What every command of this task shares: its arguments, and what they mean."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness import config
from harness.errors import UserError
from harness.precision import Precision
from recsys.clicks import ClickData
from recsys.data import load_clicks
from recsys.presets import EmbeddingFeedback, Preset, find_preset


@dataclass(frozen=True, kw_only=True)
class RunConfig(config.RunConfig):
    """Which model, data and method, where it runs and where it writes."""

    model: str | None = None
    """fm, deepfm, dcn, autoint or afn; deepfm if left out."""
    dataset: str = "synthetic"
    """synthetic, which needs no files, adult, ml-100k, ml-1m, criteo, criteo_x1 or criteo_x4."""
    preset: str | None = None
    """A named preset, such as afn_dfa, in place of model and method."""
    seed: int = 0
    """Seed of the weights, the feedback, dropout and the order of the batches. The split is fixed."""
    epochs: int | None = None
    """Passes over the training rows at most; the preset's number if left out."""
    lr: float | None = None
    """Adam's learning rate; the preset's if left out."""
    batch: int | None = None
    """Rows of a batch, over all processes; the preset's if left out."""
    dropout: float | None = None
    """Share of hidden activations dropped; the preset's if left out."""
    embedding_feedback: EmbeddingFeedback | None = None
    """What embeddings learn from the hidden layers: the method's own signal (on), nothing (off), or the gradient of the
    first of these layers (through); the preset's if left out."""
    sparse_embeddings: bool = False
    """Update the rows of a batch only, so that a step does not take longer with more categories."""
    rows: int | None = None
    """Use the first rows only; of the synthetic log, draw as many."""
    criteo_file: Path | None = None
    """Criteo's train.txt, wherever it lies."""
    min_count: int = 10
    """A category seen less often has no id of its own."""
    binning: str = "ln2"
    """How numbers become categories: ln2, log2 or quantile."""
    precision: Precision = "fp32"
    """bf16: forward pass under autocast."""
    compile: bool = False
    """Compile the model."""
    alignment: bool = False
    """Measure the alignment with backpropagation after every epoch, on its last batch."""
    checkpoint_every: int = 2000
    """Batches between checkpoints within an epoch; there is one after every epoch anyway."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for option, value in {"rows": self.rows, "min-count": self.min_count}.items():
            if value is not None and value < 1:
                raise UserError(f"--{option} {value}: give at least 1.")
        if self.criteo_file is not None and self.dataset != "criteo":
            raise UserError(
                f"--criteo-file {self.criteo_file}: this run takes --dataset {self.dataset}. Add --dataset criteo, or "
                "leave the file out."
            )
        if self.batch is not None and self.batch < 2:
            raise UserError(f"--batch {self.batch}: batch normalisation needs at least 2 rows.")
        if self.lr is not None and not 0 < self.lr < 10:
            raise UserError(f"--lr {self.lr}: give a number between 0 and 10, such as 0.001.")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise UserError(f"--dropout {self.dropout}: give a share from 0 to below 1.")

    def resolve(self) -> Preset:
        """The preset that these arguments mean."""
        preset = find_preset(model=self.model, method=self.method, dataset=self.dataset, name=self.preset)
        given: dict[str, Any] = {name: getattr(self, name) for name in ("lr", "batch", "dropout", "embedding_feedback")}
        given["max_epochs"] = self.epochs
        changes = {name: value for name, value in given.items() if value is not None}
        if self.sparse_embeddings:
            changes["sparse_embeddings"] = True
        return replace(preset, **changes)

    def load(self) -> ClickData:
        """The click log that these arguments name."""
        return load_clicks(
            self.dataset,
            self.data_dir,
            rows=self.rows,
            criteo_file=self.criteo_file,
            min_count=self.min_count,
            binning=self.binning,
        )

    def settings(self, preset: Preset) -> dict[str, Any]:
        """All that decides what the run writes down: the preset, the data, the seed and what is measured."""
        data = {"dataset": self.dataset, "rows": self.rows, "min_count": self.min_count, "binning": self.binning}
        return vars(preset) | data | {"precision": self.precision, "seed": self.seed, "alignment": self.alignment}
