"""Raw rows of a file as category ids, for a trained model."""

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

SAMPLE = 1 << 16  # bytes at the start of a file, to see whether its lines have a label


class Encoded(NamedTuple):
    """Some consecutive rows of a file."""

    ids: Tensor  # int32 [n, F], of the well-formed rows
    whole: Tensor  # bool [m], which of the rows are well-formed, in file order
    malformed: list[Malformed]  # the m - n others


def encode_file(
    encoder: Encoder, path: Path, block_bytes: int = BLOCK_BYTES, skip_malformed: bool = False
) -> Iterator[Encoded]:
    """The rows of a file, block by block, in the format of the log that the encoder was made from.

    Every line is a row, except blank lines, comments and the header.

    Args:
        encoder: The encoder of the training run.
        path: Raw rows with or without labels; see `Encoder.layout_of`.
        block_bytes: Text parsed at once.
        skip_malformed: Continue after a malformed line.

    Raises:
        UserError: the file cannot be read or has no rows; or a line is malformed and `skip_malformed` is not set, in
            which case the message names the first.
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
        found = f"has {malformed} rows, all malformed" if malformed else "has no rows"
        raise UserError(f"{path} {found}. {encoder.expected}.")


def file_layout(encoder: Encoder, path: Path) -> RowFormat:
    """What the lines of a file hold: with or without a label, columns in the order of the header."""
    if encoder.layout.header:
        return encoder.layout_of_header(*table_header(path, encoder.layout), path)
    start = next(read_blocks(path, SAMPLE), None)
    return encoder.layout_of(Block(b"", 1) if start is None else start, path)
