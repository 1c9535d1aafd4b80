"""Which weights count as the best, and when waiting for better ones ends."""

import math

import pytest
import torch

from harness.run.best import BestWeights


@pytest.mark.parametrize(
    ("scores", "step", "given_up"),
    [
        ([3.0, 2.0, 2.5], 2, False),
        ([3.0, 2.0, 2.5, 2.0], 2, True),  # as good is not better
        ([3.0, math.nan, 2.0, 4.0], 3, False),
        ([-0.6, -0.7], 2, False),
    ],
)
def test_the_lowest_score_is_the_best_and_patience_counts_those_after_it(scores, step, given_up):
    best = BestWeights(patience=2)
    better = [best.update(score, number, torch.nn.Linear(1, 1)) for number, score in enumerate(scores, start=1)]
    assert best.step == step
    assert best.score == scores[step - 1]
    assert better[step - 1 :] == [True] + [False] * (len(scores) - step)
    assert best.given_up is given_up


def test_with_mode_max_the_highest_score_is_the_best():
    best = BestWeights(patience=2, mode="max")
    better = [best.update(score, step, torch.nn.Linear(1, 1)) for step, score in enumerate([0.6, 0.7, 0.65, 0.7], 1)]
    assert better == [True, True, False, False]
    assert (best.score, best.step, best.given_up) == (0.7, 2, True)


def test_the_weights_kept_are_a_copy_that_outlives_a_checkpoint():
    model = torch.nn.Linear(2, 1)
    best, resumed = BestWeights(patience=1), BestWeights(patience=1)
    best.update(0.5, 1, model)
    before = model.weight.detach().clone()
    with torch.no_grad():
        model.weight.add_(1)
    resumed.load_state_dict(best.state_dict())
    resumed.restore(model)
    assert torch.equal(model.weight, before)
    assert resumed.update(0.5, 2, model) is False
    assert resumed.given_up
