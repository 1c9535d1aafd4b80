"""Predict clicks with a finished run: a file of raw rows in, a file of probabilities out.

    python -m recsys.predict runs/recsys/deepfm_dfa-criteo-0 new.txt --out predictions.csv

The rows have the format that the run was trained on. Labels are optional, and not used. `predictions.csv` has no
header: line n is the probability of a click for row n. Blank lines, comments and a header do not count as rows.

    a category not seen in training          gets id 0, like all rare categories
    an empty column                          is a missing value, which is a category like any other
    a line with too few or too many columns, or with text for a number
                                             is an error that names the line; with --skip-malformed the line of
                                             predictions is empty, and the row is counted and reported on stderr

The file is read in blocks, so it may have any size. `predictions.csv` is written completely or not at all. The last
line on stdout is JSON: the number of rows, the number of malformed rows, and the path of the predictions.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from harness.device import pick_device
from recsys.predict.file import predict_file
from recsys.predict.saved import load_run


@dataclass(frozen=True, kw_only=True)
class Config:
    """Predict clicks for the rows of a file with a finished run."""

    run: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN_FOLDER")]]
    """Folder of the run."""
    rows: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="ROWS_FILE")]]
    """Raw rows in the format that the run was trained on, with or without labels."""
    out: Path = Path("predictions.csv")
    """Where to write the probabilities, one per line; an existing file is replaced."""
    skip_malformed: bool = False
    """Write an empty line for a malformed row instead of stopping."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""


def main(config: Config) -> None:
    """Run the command."""
    device = pick_device(config.device)
    model, encoder, _ = load_run(config.run, device)
    found = predict_file(model, encoder, config.rows, config.out, device, skip_malformed=config.skip_malformed)
    if found.malformed:
        print(f"{found.summary(config.rows)}. Their lines in {config.out} are empty.", file=sys.stderr)
    print(json.dumps({"rows": found.rows, "malformed": found.malformed, "out": str(config.out)}))


if __name__ == "__main__":
    from harness import cli

    cli.run(Config, main)
