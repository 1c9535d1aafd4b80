"""The limits beside the measured ratios are counts of products, checked against a counter that watches a real step."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.allocations import peak_bytes
from benchmarks.by_hand import ByHand
from benchmarks.models import PostNormTransformer, PreNormTransformer, loss, mlp
from benchmarks.peers.biotorch import convolutions, convolutions_limit
from benchmarks.step_time import PRE_NORM, gpt2_limit, mlp_limit, transformer_limit
from benchmarks.timing import interleave, ratio
from tinydfa import Feedback, attach


def counted(model, method, points, output, inputs, targets, shared=True) -> int:
    attach(model, method, points=points, output=output, feedback=Feedback(shared=shared))
    with FlopCounterMode(display=False) as counter:
        loss(model, inputs, targets).backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("shared", [True, False])
def test_the_limit_of_a_perceptron_is_its_count_of_products(shared):
    widths = (9, 8, 6, 7, 5)
    data = torch.randn(4, 9), torch.randint(0, 5, (4,))
    ours, theirs = (counted(mlp(*widths), method, ["1", "3", "5"], None, *data, shared) for method in ("dfa", "bp"))
    assert ours / theirs == pytest.approx(mlp_limit(widths, shared))


def test_the_floor_trains_as_the_library_does():
    points = ("1", "3")
    data = torch.randn(4, 9), torch.randint(0, 5, (4,))
    torch.manual_seed(0)
    net = mlp(9, 7, 7, 5)
    attach(net, "dfa", points=points)
    torch.manual_seed(0)
    floor = ByHand(mlp(9, 7, 7, 5), points, outputs=5, width=7)
    for model in (net, floor):
        loss(model, *data).backward()
    for one, other in zip(net.parameters(), floor.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_the_limit_of_a_convolutional_network_is_its_count_of_products():
    case = convolutions(quick=True)
    data = torch.randn(case.inputs), torch.randint(0, 10, case.inputs[:1])
    ours, theirs = (counted(case.build(), method, case.points, None, *data) for method in ("dfa", "bp"))
    assert ours / theirs == pytest.approx(convolutions_limit(4, 4, 16))
    assert case.limits == {"tinydfa, dfa": ours / theirs}


def test_the_limit_of_a_transformer_is_its_count_of_products():
    """Of all products but attention's own, which the counter does not see on a CPU: a length of 0 leaves them out."""
    vocabulary, width, blocks, length = 50, 32, 3, 16
    points = ["blocks.*.norm1", "blocks.*.up", "blocks.*.norm2"]
    data = torch.randint(0, vocabulary, (2, length)), torch.randint(0, vocabulary, (2, length))
    models = {method: PostNormTransformer(vocabulary, width, blocks, heads=4) for method in ("dfa", "bp")}
    ours, theirs = (counted(model, method, points, "body", *data) for method, model in models.items())
    assert ours / theirs == pytest.approx(transformer_limit(vocabulary, width, blocks, length=0))


@pytest.mark.parametrize("points", PRE_NORM)
def test_the_limit_of_a_pre_norm_transformer_is_its_count_of_products(points):
    vocabulary, width, blocks, length = 50, 32, 3, 16
    data = torch.randint(0, vocabulary, (2, length)), torch.randint(0, vocabulary, (2, length))
    models = {method: PreNormTransformer(vocabulary, width, blocks, heads=4) for method in ("dfa", "bp")}
    ours, theirs = (counted(m, method, PRE_NORM[points], "ln_f", *data) for method, m in models.items())
    assert ours / theirs == pytest.approx(gpt2_limit(vocabulary, width, blocks, 0, points))


def test_peak_memory_counts_what_a_step_holds_at_once():
    def step():
        first = torch.zeros(1000, 1000)  # 4 MB
        second = first + 1
        del first
        return second + 1

    assert 8e6 <= peak_bytes(step) < 8.5e6


def test_peak_memory_takes_nothing_off_for_what_was_there_before():
    """The allocator reports what is given back, too, if an earlier measurement saw it being taken."""
    kept = []

    def replace():
        kept.clear()
        kept.append(torch.zeros(1000, 1000))  # 4 MB

    peak_bytes(replace)
    assert 4e6 <= peak_bytes(replace) < 4.5e6


def test_a_ratio_is_the_median_of_ratios_within_a_round():
    assert ratio({"a": [2.0, 20.0, 3.0], "b": [1.0, 10.0, 1.0]}, "a", to="b") == 2.0


def test_every_step_runs_in_every_round():
    calls = {"a": 0, "b": 0}

    def count(name):
        calls[name] += 1

    times = interleave({"a": lambda: count("a"), "b": lambda: count("b")}, rounds=5, warm_up=2)
    assert calls == {"a": 7, "b": 7}
    assert [len(values) for values in times.values()] == [5, 5]
