"""The benchmark of preparing a click log: what it counts, and that a contestant runs in a process of its own."""

import json

import pytest

from benchmarks import recsys_cache


def test_the_ratio_is_that_of_a_round(capsys):
    def run(seconds):
        return {"rows": 10, "seconds": seconds, "worked": 1, "rows_per_second": 10 / seconds, "memory": seconds}

    runs = {recsys_cache.OURS: [run(1), run(4), run(2)], recsys_cache.THEIRS: [run(6), run(8), run(20)]}
    row = recsys_cache._row(recsys_cache.OURS, 0.5, runs)
    assert row["ratio to torchfm"] == 6.0  # of 6, 2 and 10
    assert row["seconds"] == 2
    assert row["peak memory, GB"] == 4


def test_memory_is_that_of_the_process_at_its_largest():
    before = recsys_cache.largest_resident_set()
    held = bytearray(before + 50_000_000)
    held[::4096] = b"x" * len(held[::4096])
    after = recsys_cache.largest_resident_set()
    del held
    assert after >= before + 40_000_000
    assert recsys_cache.largest_resident_set() == pytest.approx(after, rel=0.01)


def test_a_preparation_is_measured_and_leaves_nothing(tmp_path, capsys):
    out = tmp_path / "cache.json"
    (tmp_path / "work").mkdir()
    recsys_cache.main(recsys_cache.Config(rows=500, rounds=1, torchfm=False, folder=tmp_path / "work", out=out))
    (row,) = json.loads(out.read_text())["rows"]
    assert row["rows"] == 500
    assert row["rows per second"] > 0
    assert list((tmp_path / "work").iterdir()) == []
