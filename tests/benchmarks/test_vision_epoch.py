"""The epoch benchmark: its limits, and that it runs on the embedded digits."""

import json

import pytest

from benchmarks import vision_epoch
from tinydfa import Method


def test_limits_count_the_products_of_both_layers():
    backprop = 2 * 784 * 500 + 3 * 500 * 10
    assert vision_epoch.share(Method.SHALLOW, 784, 500, 10) == pytest.approx((784 * 500 + 2 * 500 * 10) / backprop)
    assert vision_epoch.share(Method.DFA, 784, 500, 10) == 1.0


def test_every_method_is_measured(tmp_path, capsys):
    vision_epoch.main(vision_epoch.Config(rounds=1, threads=1, out=tmp_path / "epoch.json"))
    rows = json.loads((tmp_path / "epoch.json").read_text())["rows"]
    assert [row["method"] for row in rows] == [method.value for method in Method]
    assert all(row["seconds"] > 0 for row in rows)
