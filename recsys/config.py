"""What every command of this task shares: its arguments, and what they mean."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness import config
from harness.errors import UserError
from harness.precision import Precision
from recsys.data import counting, load_clicks
from recsys.datasets.own import OwnTable
from recsys.log.clicks import ClickData
from recsys.options import OWN, check_options, check_preset_options
from recsys.presets import EmbeddingFeedback, Preset, find_preset


@dataclass(frozen=True, kw_only=True)
class RunConfig(config.RunConfig):
    """Which model, data and method, where it runs and where it writes."""

    model: str | None = None
    """fm, deepfm, dcn, autoint or afn; deepfm if left out."""
    dataset: str = "synthetic"
    """synthetic, which needs no files, adult, ml-100k, ml-1m, criteo, criteo_x1 or criteo_x4."""
    table: Path | None = None
    """A CSV or Parquet file of your own with named columns, in place of --dataset."""
    label: str | None = None
    """The column of --table that tells of a click."""
    clicks: tuple[str, ...] = ()
    """Values of --label that mean a click; 1, true, yes, t or y, whichever it has, if left out."""
    numbers: tuple[str, ...] = ()
    """Columns of --table that hold numbers; what is in them decides if left out."""
    categories: tuple[str, ...] = ()
    """Columns of --table that hold categories, such as codes made of digits; what is in them decides if left out."""
    ignore: tuple[str, ...] = ()
    """Columns of --table to leave out."""
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
    min_count: int | None = None
    """A category seen less often has no id of its own; 10 in logs of Criteo's format and 2 in a --table if left out."""
    binning: str | None = None
    """How the counts of Criteo's format become categories: ln2, log2 or quantile; ln2 if left out."""
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
        if self.batch is not None and self.batch < 2:
            raise UserError(f"--batch {self.batch}: batch normalisation needs at least 2 rows.")
        if self.lr is not None and not 0 < self.lr < 10:
            raise UserError(f"--lr {self.lr}: give a number between 0 and 10, such as 0.001.")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise UserError(f"--dropout {self.dropout}: give a share from 0 to below 1.")
        check_options(self)

    @property
    def source(self) -> str:
        """The data set's name: "own" for a table."""
        return self.dataset if self.table is None else OWN

    def resolve(self) -> Preset:
        """The preset that these arguments mean."""
        preset = find_preset(model=self.model, method=self.method, dataset=self.source, name=self.preset)
        check_preset_options(self, preset)
        given: dict[str, Any] = {name: getattr(self, name) for name in ("lr", "batch", "dropout", "embedding_feedback")}
        given["max_epochs"] = self.epochs
        changes = {name: value for name, value in given.items() if value is not None}
        if self.sparse_embeddings:
            changes["sparse_embeddings"] = True
        return replace(preset, **changes)

    def load(self) -> ClickData:
        """The click log that these arguments name."""
        own = None
        if self.table is not None:
            said = {"clicks": self.clicks, "numbers": self.numbers, "categories": self.categories}
            own = OwnTable(path=self.table, label=self.label or "", ignored=self.ignore, **said)
        return load_clicks(
            self.source,
            self.data_dir,
            rows=self.rows,
            criteo_file=self.criteo_file,
            min_count=self.min_count,
            binning=self.binning,
            own=own,
        )

    def settings(self, preset: Preset) -> dict[str, Any]:
        """All that decides what the run writes down: the preset, the data, the seed and what is measured."""
        min_count, binning = counting(self.source, self.min_count, self.binning)
        data: dict[str, Any] = {"dataset": self.source, "rows": self.rows, "min_count": min_count, "binning": binning}
        if self.table is not None:
            data |= {name: list(getattr(self, name)) for name in ("clicks", "numbers", "categories", "ignore")}
            data |= {"label": self.label}
        return vars(preset) | data | {"precision": self.precision, "seed": self.seed, "alignment": self.alignment}
