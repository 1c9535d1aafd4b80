"""Raw rows from a file, as a trained model wants to see them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from harness.errors import UserError
from recsys.encode import Encoder
from recsys.rows import BLOCK_BYTES, header_line, read_blocks


def encode_file(encoder: Encoder, path: Path, block_bytes: int = BLOCK_BYTES) -> Iterator[Tensor]:
    """The rows of a file in the format of the log that the encoder was made from, in order, some at a time.

    Args:
        encoder: That of the training run.
        path: Raw rows with or without labels; see `Encoder.layout_of`.
        block_bytes: Text parsed at once.

    Yields:
        Category ids, int32 ``[n, F]``, one row per line that is not blank.

    Raises:
        UserError: the file cannot be read, or a line is not of the format; it names the line.
    """
    layout = encoder.layout_of(header_line(path).rstrip("\r\n"), path)
    found = False
    for block in read_blocks(path, block_bytes, header=layout.header):
        ids = encoder.encode_block(block, layout, path)
        found = found or len(ids) > 0
        yield ids
    if not found:
        raise UserError(f"{path} has no rows. Give a file with one impression a line.")
