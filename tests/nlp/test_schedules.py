"""Learning rates, step by step."""

import json

import pytest
import torch

from nlp.presets import Preset
from nlp.schedules import Schedule, make_optimizer


def built(steps=100, **options):
    weight = torch.nn.Parameter(torch.ones(3))
    preset = Preset(method="bp", d_model=64, **options)
    optimizer = make_optimizer(preset, [weight])
    return optimizer, Schedule(preset, optimizer, steps)


def rates(steps, total=100, perplexities=(), **options):
    """The learning rate that each step is taken with; after it the next of `perplexities` is seen."""
    optimizer, schedule = built(total, **options)
    found, scores = [], iter(perplexities)
    for _ in range(steps):
        found.append(schedule.lr)
        optimizer.param_groups[0]["params"][0].grad = torch.ones(3)
        optimizer.step()
        schedule.step()
        if perplexities:
            schedule.validated(next(scores))
    return found


def test_noam_rises_for_the_warm_up_and_falls_with_the_root_of_the_step():
    found = rates(40, schedule="noam", warmup=10, lr=2.0)
    expected = [2.0 * 64**-0.5 * min(s**-0.5, s * 10**-1.5) for s in range(1, 41)]
    assert found == pytest.approx(expected)
    assert max(found) == found[9]


@pytest.mark.parametrize("schedule", ["adam", "radam"])
def test_adam_and_radam_stay_constant(schedule):
    assert rates(5, schedule=schedule, lr=3e-4, perplexities=[9, 9, 9, 9, 9]) == [3e-4] * 5


def test_onecycle_rises_to_the_highest_rate_and_ends_near_zero_at_the_last_step():
    found = rates(50, total=50, schedule="onecycle", lr=0.01)
    assert max(found) == pytest.approx(0.01)
    assert found[0] == pytest.approx(0.01 / 25)
    assert found[-1] < 1e-5


def test_plateau_lowers_the_rate_after_two_validations_without_a_better_perplexity():
    perplexities = [90, 80, 81, 79, 79.5, 80, 79.8, 85]
    found = rates(8, schedule="plateau", lr=1e-4, perplexities=perplexities)
    assert found == pytest.approx([1e-4] * 6 + [2e-5] * 2)  # the third after 79 is the second without a better one


def test_optimisers_have_the_published_epsilon_and_the_presets_betas():
    for schedule, kind in (("noam", torch.optim.Adam), ("plateau", torch.optim.Adam), ("radam", torch.optim.RAdam)):
        optimizer, _ = built(schedule=schedule, lr=1e-3, betas=(0.9, 0.999))
        group = optimizer.param_groups[0]
        assert type(optimizer) is kind
        assert (group["eps"], group["betas"], group["weight_decay"]) == (1e-9, (0.9, 0.999), 0)


@pytest.mark.parametrize("schedule", ["noam", "adam", "onecycle", "radam", "plateau"])
def test_a_saved_schedule_goes_on_as_it_would_have(schedule):
    perplexities = [9, 8, 8.5, 8.6, 8.7, 8.8, 9, 9]

    def steps(optimizer, plan, scores):
        found = []
        for score in scores:
            optimizer.param_groups[0]["params"][0].grad = torch.ones(3)
            optimizer.step()
            plan.step()
            plan.validated(score)
            found.append(plan.lr)
        return found

    whole = steps(*built(8, schedule=schedule, lr=0.1, warmup=3), perplexities)
    optimizer, plan = built(8, schedule=schedule, lr=0.1, warmup=3)
    first = steps(optimizer, plan, perplexities[:3])
    other, resumed = built(8, schedule=schedule, lr=0.1, warmup=3)
    other.load_state_dict(optimizer.state_dict())
    resumed.load_state_dict(json.loads(json.dumps(plan.state_dict())))
    assert first + steps(other, resumed, perplexities[3:]) == whole
