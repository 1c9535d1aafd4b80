"""Raw rows from a file, as a trained model wants to see them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from harness.errors import UserError
from recsys.log.encoder import Encoder
from recsys.log.formats import RowFormat
from recsys.log.rows import Malformed, parse
from recsys.log.text import BLOCK_BYTES, Block, read_blocks, table_blocks, table_header

SAMPLE = 1 << 16  # bytes at the start of a file that tell whether its lines have a label


class Encoded(NamedTuple):
    """Some neighbouring rows of a file."""

    ids: Tensor  # int32 [n, F], of the rows that are whole
    whole: Tensor  # bool [m], which of the rows these are, in the order of the file
    malformed: list[Malformed]  # the m - n others


def encode_file(
    encoder: Encoder, path: Path, block_bytes: int = BLOCK_BYTES, skip_malformed: bool = False
) -> Iterator[Encoded]:
    """The rows of a file in the format of the log that the encoder was made from, in order, some at a time.

    A line is a row, unless it is blank, a comment of the format, or its header.

    Args:
        encoder: That of the training run.
        path: Raw rows with or without labels; see `Encoder.layout_of`.
        block_bytes: Text parsed at once.
        skip_malformed: Go on after a line that is not of the format.

    Raises:
        UserError: the file cannot be read or has no rows; or a line is not of the format, and is not to be skipped: it
            names the first one.
    """
    layout = file_layout(encoder, path)
    whole = malformed = 0
    for block in table_blocks(path, layout, block_bytes):
        rows = parse(block, layout)
        if not skip_malformed:
            encoder.refuse(rows.malformed, path)
        lines = np.sort(np.concatenate([rows.lines, np.array([bad.line for bad in rows.malformed], dtype=np.int64)]))
        ids = torch.from_numpy(encoder.encode_frame(rows.frame))
        yield Encoded(ids, torch.from_numpy(np.isin(lines, rows.lines)), rows.malformed)
        whole, malformed = whole + len(ids), malformed + len(rows.malformed)
    if not whole:
        found = f"has {malformed} rows, none of the format" if malformed else "has no rows"
        raise UserError(f"{path} {found}. {encoder.expected}.")


def file_layout(encoder: Encoder, path: Path) -> RowFormat:
    """What the lines of a file hold: with or without a label, and the columns in the order of its header."""
    if encoder.layout.header:
        return encoder.layout_of_header(*table_header(path, encoder.layout), path)
    start = next(read_blocks(path, SAMPLE), None)
    return encoder.layout_of(Block(b"", 1) if start is None else start, path)
