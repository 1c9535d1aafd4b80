"""The simulator of pipeline schedules, against closed forms and against schedules worked out by hand."""

import pytest

from benchmarks.schedules import SCHEDULES, Times, closed_form, simulate, zero_bubble

GRID = [(1, 1), (1, 3), (2, 1), (2, 4), (3, 2), (4, 4), (4, 9), (5, 3), (8, 16), (8, 8)]


@pytest.mark.parametrize(("stages", "microbatches"), GRID)
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_step_takes_what_the_closed_form_says(name, stages, microbatches):
    if name in ("1f1b", "zb-h1") and microbatches < stages:
        pytest.skip("the closed forms of these two hold for at least as many microbatches as stages")
    found = simulate(name, stages, microbatches, steps=4).step_time
    assert found == pytest.approx(closed_form(name, stages, microbatches))


def test_two_stages_overlapped_by_hand():
    """P = M = 2: stage 0 does F0 F1 W0 W1, stage 1 the same a unit later, and the error is half a unit on its way."""
    run = simulate("dfa overlap", 2, 2, Times(broadcast=0.5), steps=2)
    found = {(d.stage, d.step, d.kind, d.microbatch): d.start for d in run.done}
    first = {(0, "F", 0): 0, (0, "F", 1): 1, (1, "F", 0): 1, (1, "F", 1): 2, (0, "W", 0): 2.5, (0, "W", 1): 3.5}
    first |= {(1, "W", 0): 3, (1, "W", 1): 4}
    assert {(s, k, m): found[s, 0, k, m] for s, k, m in first} == first
    assert found[0, 1, "F", 0] == 4.5  # its own weights are updated, and stage 1 is not asked
    assert found[1, 1, "F", 0] == 5.5


def test_1f1b_of_unequal_stages_by_hand():
    """P = 2, M = 2; stage 1 takes twice as long, a message half a unit."""
    run = simulate("1f1b", 2, 2, Times(forward=(1, 2), weights=(1, 2), inputs=(1, 2), send=0.5))
    found = {(d.stage, d.kind, d.microbatch): (d.start, d.end) for d in run.done}
    assert found == {
        (0, "F", 0): (0, 1),
        (0, "F", 1): (1, 2),
        (1, "F", 0): (1.5, 3.5),
        (1, "B", 0): (3.5, 7.5),
        (0, "B", 0): (8, 10),
        (1, "F", 1): (7.5, 9.5),
        (1, "B", 1): (9.5, 13.5),
        (0, "B", 1): (14, 16),
    }


def test_a_link_carries_one_message_at_a_time():
    run = simulate("dfa flush", 2, 3, Times(send=3.0))
    assert [d.start for d in run.done if d.stage == 1 and d.kind == "F"] == [4, 7, 10]  # not 4, 6, 8


@pytest.mark.parametrize(("stages", "microbatches"), [(2, 4), (4, 4), (4, 9), (8, 16)])
def test_a_stage_holds_as_many_microbatches_as_there_are_stages_from_it_on(stages, microbatches):
    for name in ("1f1b", "dfa flush"):
        assert simulate(name, stages, microbatches, steps=3).most == list(range(stages, 0, -1))
    assert simulate("dfa overlap", stages, microbatches, steps=3).most == [stages] * stages
    assert simulate("drtp", stages, microbatches, steps=3).most == [1] * stages


def test_zero_bubble_computes_each_gradient_once_and_after_what_it_needs():
    for stage in range(4):
        actions = zero_bubble(4, 6, stage)
        assert sorted(actions) == sorted((kind, number) for kind in "FIW" for number in range(6))
        assert all(actions.index(("F", n)) < actions.index(("I", n)) < actions.index(("W", n)) for n in range(6))


def test_a_slow_broadcast_is_what_a_step_of_dfa_takes():
    assert simulate("dfa overlap", 4, 64, Times(broadcast=5.0), steps=3).step_time == pytest.approx(5 * 64, rel=0.05)
