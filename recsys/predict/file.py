"""From a file of raw rows to a file of probabilities, a block at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import torch
from torch import Tensor, nn

from harness.errors import UserError
from harness.files import replacing
from harness.run.progress import track
from recsys.evaluate import AT_ONCE
from recsys.log.encoder import Encoder
from recsys.log.rows import Malformed
from recsys.log.text import BLOCK_BYTES
from recsys.predict.rows import Encoded, encode_file

EXAMPLES = 10  # malformed lines to report


@dataclass
class Found:
    """What was found in a file."""

    rows: int = 0  # malformed ones included
    malformed: int = 0
    examples: tuple[Malformed, ...] = ()  # the first of them

    def add(self, block: Encoded) -> None:
        """Count the rows of one more block."""
        self.rows += len(block.whole)
        self.malformed += len(block.malformed)
        self.examples = (*self.examples, *block.malformed)[:EXAMPLES]

    def summary(self, path: Path) -> str:
        """The malformed rows in one sentence."""
        listed = "; ".join(f"line {each.line}: {each.reason}" for each in self.examples)
        rest = "; ..." if self.malformed > len(self.examples) else ""
        return f"{path}: {self.malformed} of {self.rows} rows are malformed ({listed}{rest})"


@torch.no_grad()
def probabilities(model: nn.Module, ids: Tensor, device: torch.device) -> Tensor:
    """Probabilities of a click, float32 ``[n]`` on the CPU, for rows of category ids ``[n, F]``."""
    parts = [torch.sigmoid(model(part.to(device)).float()).squeeze(1).cpu() for part in ids.split(AT_ONCE)]
    return torch.cat(parts) if parts else torch.empty(0)


def predict_file(
    model: nn.Module,
    encoder: Encoder,
    rows: Path,
    out: Path,
    device: torch.device,
    *,
    skip_malformed: bool = False,
    block_bytes: int = BLOCK_BYTES,
) -> Found:
    """Write the probability of a click for every row of a file.

    Args:
        model: Maps category ids ``[n, F]`` to logits ``[n, 1]``; in evaluation mode.
        encoder: Turns the rows into category ids.
        rows: Raw rows.
        out: One line per row, empty for a malformed one. Written under another name and renamed at the end.
        device: Device of the model.
        skip_malformed: Continue after a malformed row.
        block_bytes: Text in memory at once.

    Raises:
        UserError: `rows` cannot be read, has no rows, or malformed ones while `skip_malformed` is not set; the model
            returns NaN; or `out` cannot be written.
    """
    if out.exists():  # a device such as /dev/null would be replaced
        same = rows.exists() and out.samefile(rows)
        if same or not out.is_file():
            raise UserError(
                f"--out {out} is {'the file of rows' if same else 'not a regular file'}. Name another file."
            )
    found = Found()
    with replacing(out) as file:
        for block in _read(encoder, rows, skip_malformed, block_bytes):
            chance = probabilities(model, block.ids, device)
            _refuse_nan(chance, rows, found.rows)
            column = torch.full((len(block.whole),), float("nan")).masked_scatter_(block.whole, chance)
            pl.Series("chance", column.numpy(), nan_to_null=True).to_frame().write_csv(file, include_header=False)
            found.add(block)
    return found


def _read(encoder: Encoder, rows: Path, skip_malformed: bool, block_bytes: int) -> Iterator[Encoded]:
    blocks = encode_file(encoder, rows, block_bytes, skip_malformed)
    total = -(-rows.stat().st_size // block_bytes) if rows.is_file() else None
    return track(blocks, f"predicting {rows.name}", total)


def _refuse_nan(chance: Tensor, rows: Path, before: int) -> None:
    """Raise if the model returns NaN, as it may for categories that never occurred together in training."""
    broken = int(chance.isnan().sum())
    if broken:
        raise UserError(
            f"{rows}: the model returns NaN for {broken} of the {len(chance)} rows after row {before}. Train it with a "
            "lower --lr."
        )
