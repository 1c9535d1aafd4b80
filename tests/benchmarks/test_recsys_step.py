"""The benchmarks of the click models' steps: their limits, their data, and that they run."""

import json

import pytest

from benchmarks import recsys_step, recsys_vocabulary
from tinydfa import Method

DIMS = (3,) * 39


def counted(model):
    presets = [recsys_step.find(model, method, 2048) for method in (Method.DFA, Method.BP)]
    ours, theirs = (recsys_step.products(preset, DIMS, rows=6) for preset in presets)
    return ours, theirs


def test_the_products_of_deepfm_are_those_of_its_perceptron():
    """Per row: 390-400-400-400-1; backpropagation does three of each, DFA two and one projection to 400 units."""
    inputs, hidden = 39 * 10 * 400, 2 * 400 * 400
    ours, theirs = counted("deepfm")
    assert theirs == 6 * 2 * 3 * (inputs + hidden + 400)
    assert ours == 6 * 2 * (2 * (inputs + hidden + 400) + 400)


def test_the_limit_of_dcn_lies_a_little_above_two_thirds():
    ours, theirs = counted("dcn")
    assert 2 / 3 < ours / theirs < 0.7


def test_sizes_of_fields_add_up_and_grow_to_the_largest():
    for categories in (10_000, 1_000_000):
        sizes = recsys_step.criteo_like(categories)
        assert len(sizes) == 39
        assert sum(sizes) == categories
        assert list(sizes[13:]) == sorted(sizes[13:])


def test_a_batch_has_every_category_within_its_field_and_low_ones_most_often():
    sizes = recsys_step.criteo_like(100_000)
    batch = recsys_step.draw_batch(sizes, 4000, "cpu")
    for column, size in zip(batch.fields.T, sizes, strict=True):
        assert 0 <= int(column.min()) <= int(column.max()) < size
    largest = batch.fields[:, -1].double()
    assert (largest < sizes[-1] ** 0.5).double().mean() == pytest.approx(0.5, abs=0.05)


def test_every_contestant_of_a_model_is_measured(tmp_path, capsys):
    config = recsys_step.Config(
        models=("fm", "deepfm"), rounds=2, batch=32, categories=2000, threads=1, out=tmp_path / "step.json"
    )
    recsys_step.main(config)
    rows = json.loads((tmp_path / "step.json").read_text())["rows"]
    found = [(row["model"], row["contestant"]) for row in rows]
    common = ["torchfm", "torchfm, fused", "bp"]
    assert found == [("fm", name) for name in common] + [("deepfm", name) for name in (*common, "dfa")]
    assert all(row["ms a step"] > 0 for row in rows)


def test_every_size_of_table_is_measured_and_large_ones_only_sparse(tmp_path, capsys):
    config = recsys_vocabulary.Config(
        model="fm", categories=(2000, 4000), dense_up_to=2000, rounds=2, batch=32, threads=1, out=tmp_path / "v.json"
    )
    recsys_vocabulary.main(config)
    rows = json.loads((tmp_path / "v.json").read_text())["rows"]
    found = [(row["embeddings"], row["categories"]) for row in rows]
    assert found == [("sparse", 2000), ("sparse", 4000), ("dense", 2000)]
    assert rows[0]["different in a batch"] < rows[1]["different in a batch"]
