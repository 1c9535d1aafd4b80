"""Models spread over processes, sharded or split, before or after `attach`, train as they do in one."""

from __future__ import annotations

import pytest
import torch
from torch import distributed
from torch.nn.functional import cross_entropy

from tests.processes import in_two_processes
from tests.tinydfa.surroundings import spread
from tinydfa import DFAError, measure_alignment

ORDERS = ["attach first", "attach last"]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spread")
    in_two_processes(spread.worker, folder)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


def equal(ranks, name: str, expected) -> None:
    for rank in ranks:
        found = rank[name]
        assert isinstance(found, dict), found
        assert found.keys() == expected.keys()
        for key, gradient in expected.items():
            torch.testing.assert_close(found[key], gradient, msg=lambda text, key=key: f"{name}, {key}: {text}")


@pytest.mark.parametrize("points", ["at blocks", "inside", "of its own"])
@pytest.mark.parametrize("order", ORDERS)
def test_fully_shard(order, points, ranks):
    equal(ranks, f"fsdp2 {order}, points {points}", spread.by_hand())


@pytest.mark.parametrize("method", ["fa", "brsf"])
@pytest.mark.parametrize("order", ORDERS)
def test_fully_shard_under_layer_wise_rules(order, method, ranks):
    net, (x, y) = spread.Net(), spread.data()
    spread.start(net, None, method)
    cross_entropy(net(x), y).backward()
    equal(ranks, f"{method} {order}", {name: p.grad for name, p in net.named_parameters()})


def test_fully_shard_after_the_first_step(ranks):
    equal(ranks, "fsdp2 after a step", spread.by_hand())


def test_backward_hooks_of_sharded_modules_see_the_signal(ranks):
    for rank in ranks:
        assert isinstance(rank["fsdp2 with hooks"], dict), rank["fsdp2 with hooks"]
        assert rank["fsdp2 with hooks"].keys() == {"0", "1", "2"}
        assert [tuple(signal.shape) for signal in rank["fsdp2 with hooks"].values()] == [(4, 6), (4, 8), (4, 5)]


def test_doctor_examines_sharded_modules(ranks):
    for rank in ranks:
        found = rank["doctor"]
        assert isinstance(found, dict), found
        assert found.pop("findings") == found.pop("left") == ""
        assert found == {name: "bp" if name.startswith("top") else "method" for name in spread.by_hand()}


def test_alignment_of_sharded_modules_is_that_of_the_whole_batch(ranks):
    net, (x, y) = spread.Net(), spread.data()
    spread.start(net, ["blocks.*"])
    expected = measure_alignment(net, lambda net: cross_entropy(net(x), y))
    for rank in ranks:
        assert isinstance(rank["aligned"], dict), rank["aligned"]
        for name, p in net.named_parameters():
            assert p.requires_grad
            assert rank["aligned"][name] == pytest.approx(expected[name].mean)


@pytest.mark.parametrize("original", [True, False])
@pytest.mark.parametrize("order", ORDERS)
def test_fully_sharded_data_parallel(order, original, ranks):
    name = f"fsdp1 {order}, {original}"
    equal(ranks, name, spread.by_hand())


@pytest.mark.parametrize("at", spread.PLANS)
@pytest.mark.parametrize("order", ORDERS)
def test_a_process_reads_the_columns_that_it_has(order, at, ranks):
    equal(ranks, f"tp {order}, {at}", spread.split_by_hand(at.partition(" ")[0]))


def test_a_pass_without_gradients_draws_no_narrow_feedback(ranks):
    equal(ranks, "tp evaluated first", spread.split_by_hand("up"))


def test_a_process_reads_the_rows_that_it_has(ranks):
    equal(ranks, "sequence parallel", spread.positions_by_hand())


def test_what_cannot_be_told_is_refused(ranks):
    for rank in ranks:
        assert "spread over processes" in rank["split_output"]
        assert "output_layouts=Replicate()" in rank["split_output"]
        assert "'blocks.0.up' lie above frozen layers" in rank["split_frozen"]
        assert "dkp learns a feedback for whole layers" in rank["split_learning"]
        for order in ORDERS:
            assert "fa, frsf and brsf have a whole matrix" in rank[f"split fa {order}"]


@pytest.fixture
def one_process(tmp_path):
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize("methods", [("dfa", "dfa"), ("dfa", None), (None, "dfa"), ("bp", "sdfa")])
def test_a_stage_of_a_pipeline_is_refused(methods, one_process):
    number = methods.index(next(method for method in methods if method not in (None, "bp")))
    with pytest.raises(DFAError, match=rf"(?s)stage {number} of 2 of a pipeline.*fully_shard.*'bp'"):
        spread.pipeline(methods)


def test_stages_that_train_by_backpropagation_are_not(one_process):
    found, expected = spread.pipeline(("bp", "bp")), spread.pipeline((None, None))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], gradient) for name, gradient in expected.items())
