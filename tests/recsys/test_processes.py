"""Two processes train one model as one process does with the same batches, by every rule."""

import pytest

from harness.errors import UserError
from harness.processes import Processes
from recsys.train import load, train
from tests.processes import RULES, assert_trained_as_one, curves_of_two
from tests.recsys.runs import options

SMALL = {"model": "dcn", "rows": 1500, "epochs": 1, "batch": 255, "lr": 0.003}  # shares of 128 and 127 rows


def curves(rule):
    return train(options(method=rule, **SMALL))["curves"]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return curves_of_two(curves, RULES, tmp_path_factory.mktemp("two"))


@pytest.mark.parametrize("rule", RULES)
def test_two_processes_train_by_every_rule_as_one_does(rule, two):
    assert_trained_as_one(rule, two, curves)


def test_a_threshold_that_is_the_mean_of_a_batch_is_refused_where_processes_share_it(monkeypatch):
    load(options(method="tdfa", **SMALL))
    monkeypatch.setattr("recsys.train.current", lambda: Processes(0, 2))
    with pytest.raises(UserError, match=r"--method tdfa makes something else.*2 processes.*tdfa\(threshold=0.001\)"):
        load(options(method="tdfa", **SMALL))
