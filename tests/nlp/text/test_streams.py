"""Streams: in a pass every token but the first is a target exactly once, whatever the lengths."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from harness.errors import UserError
from harness.processes import Processes
from nlp.text.streams import IGNORED, chunk_count, chunks

SIZES = [(2, 1, 1), (11, 3, 10), (100, 4, 7), (101, 4, 7), (1001, 8, 16), (1024, 8, 16), (50, 64, 3), (130, 1, 64)]


def predictions(steps):
    """Every (input, target) pair of a pass, in order."""
    pairs = []
    for step in steps:
        keep = step.y != IGNORED
        pairs += zip(step.x[keep].tolist(), step.y[keep].tolist(), strict=True)
    return pairs


@pytest.mark.parametrize(("length", "batch", "chunk"), SIZES)
def test_every_token_but_the_first_is_predicted_once_from_the_one_before(length, batch, chunk):
    steps = list(chunks(np.arange(length, dtype=np.uint16), batch, chunk, "cpu"))
    assert sorted(predictions(steps)) == [(number, number + 1) for number in range(length - 1)]
    assert sum(step.tokens for step in steps) == length - 1
    assert len(steps) == chunk_count(length, batch, chunk)


@pytest.mark.parametrize(("length", "batch", "chunk"), SIZES)
def test_batches_keep_their_shape_and_only_the_last_step_and_one_window_are_not_full(length, batch, chunk):
    steps = list(chunks(np.arange(length, dtype=np.int32), batch, chunk, "cpu"))
    for step in steps:
        assert step.x.shape == step.y.shape == (batch, chunk)
        assert step.x.dtype == step.y.dtype == torch.int64
        assert step.tokens == int((step.y != IGNORED).sum()) > 0
        assert not step.x[step.y == IGNORED].any()
    counts = torch.stack([(step.y != IGNORED).sum(dim=1) for step in steps])  # [steps, B]
    assert bool((counts[:-1] >= 1).all())  # rows are empty in the last step only
    assert int(((counts > 0) & (counts < chunk)).sum()) <= 1
    assert int((counts > 0).sum()) == math.ceil((length - 1) / chunk)


def test_a_column_reads_on_where_its_last_chunk_ended():
    steps = list(chunks(np.arange(97, dtype=np.uint16), 4, 8, "cpu"))  # 12 windows: 3 a column
    for before, after in pairwise(steps):
        assert torch.equal(after.x[:, 0], before.y[:, -1])
    assert steps[0].x[:, 0].tolist() == [0, 24, 48, 72]


@pytest.mark.parametrize("start", [0, 1, 3, 15, 16])
def test_a_pass_goes_on_after_the_steps_that_were_done(start):
    stream = np.random.default_rng(0).integers(0, 50, 1001).astype(np.uint16)
    whole, rest = list(chunks(stream, 4, 16, "cpu")), list(chunks(stream, 4, 16, "cpu", start=start))
    assert len(rest) == len(whole) - start
    for one, other in zip(whole[start:], rest, strict=True):
        assert torch.equal(one.x, other.x)
        assert torch.equal(one.y, other.y)
        assert one.tokens == other.tokens


@pytest.mark.parametrize(("length", "batch", "chunk"), [(1001, 8, 16), (1000, 7, 16), (50, 5, 11)])
@pytest.mark.parametrize("size", [2, 3])
def test_processes_share_the_columns_and_agree_on_steps_and_tokens(length, batch, chunk, size):
    stream = np.arange(length, dtype=np.uint16)
    alone = list(chunks(stream, batch, chunk, "cpu"))
    shares = [list(chunks(stream, batch, chunk, "cpu", processes=Processes(rank, size))) for rank in range(size)]
    assert {len(share) for share in shares} == {len(alone)}
    for step, *parts in zip(alone, *shares, strict=True):
        assert {part.tokens for part in parts} == {step.tokens}
        assert sorted(predictions(parts)) == sorted(predictions([step]))
        assert sum(len(part.x) for part in parts) == batch


def test_a_stream_shorter_than_a_chunk_is_an_error_that_says_how_much_shorter():
    with pytest.raises(UserError, match=r"notes has 10 tokens, and a chunk of 10 needs 11\..*longer text.*--chunk"):
        chunks(np.arange(10, dtype=np.uint16), 2, 10, "cpu", name="notes")


def test_more_processes_than_columns_are_an_error():
    with pytest.raises(UserError, match=r"--batch 2 .* 3 processes"):
        chunks(np.arange(100, dtype=np.uint16), 2, 10, "cpu", processes=Processes(0, 3))


def test_a_stream_on_disk_is_read_as_it_is_needed(tmp_path):
    np.arange(1000, dtype=np.uint16).tofile(tmp_path / "ids.bin")
    stream = np.memmap(tmp_path / "ids.bin", np.uint16, mode="r")
    assert sorted(predictions(chunks(stream, 4, 16, "cpu"))) == [(number, number + 1) for number in range(999)]
