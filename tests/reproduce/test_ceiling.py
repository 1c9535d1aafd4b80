"""What a linear map of the error explains of backpropagation's signals: against numpy's least squares."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from harness.tables import RunContext
from harness.tables.results import read
from nlp.model.transformer import LanguageModel
from nlp.presets import Preset
from reproduce.learned import ceiling
from reproduce.learned.ceiling import (
    CEILING,
    COLUMNS,
    MEASURES,
    NETWORKS,
    Ceiling,
    Share,
    by_kind,
    explained,
    noting_the_error_above,
)
from reproduce.runs import ROOT
from reproduce.scoreboard.summary import best_rate
from tinydfa import attach


def moments(x: Tensor, delta: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
    return x.T @ x, x.T @ delta, delta.square().sum(), len(x)


def drawn(rows: int, *widths: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, width, generator=generator, dtype=torch.float64) for width in widths]


def test_the_share_explained_is_that_of_least_squares_corrected_for_the_number_of_regressors():
    x, delta = drawn(40, 6, 4)
    delta = delta + x[:, :4]
    _, left, _, _ = np.linalg.lstsq(x.numpy(), delta.numpy(), rcond=None)
    by_hand = 1 - left.sum() / float(delta.square().sum()) * 40 / 34
    assert explained(*moments(x, delta)) == pytest.approx(by_hand, abs=1e-9)
    twice = torch.cat([x, x], dim=1)  # says nothing new
    assert explained(*moments(twice, delta)) == pytest.approx(by_hand, abs=1e-6)


def test_what_is_linear_is_explained_and_noise_is_not():
    x, noise, matrix = *drawn(3000, 5, 4), drawn(5, 4)[0]
    assert explained(*moments(x, x @ matrix)) == pytest.approx(1.0)
    assert abs(explained(*moments(x, noise))) < 0.01


class Summing(nn.Module):
    """The output of a token is a matrix times its own value and those of the tokens before it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.low, self.top, self.other = nn.Linear(3, 5), nn.Linear(5, 4), nn.Linear(5, 4)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        h = self.low(x)
        return self.top(h) + self.other(h.cumsum(dim=1) - h)


@pytest.fixture
def found():
    Ceiling.found.clear()
    yield Ceiling.found
    Ceiling.found.clear()
    Ceiling.waiting.clear()


def test_what_reaches_a_token_from_later_ones_is_explained_by_their_errors_alone(found):
    model, (x, error) = Summing(), (part.view(30, 8, -1) for part in drawn(240, 3, 4))
    attach(model, Ceiling(tokens=8, exact_every=2, ridge=1e-13), points=["low"])
    for _ in range(3):
        (model(x) * error).sum().backward()
    assert [(share.point, share.look) for share in found] == [("low", 0), ("low", 1)]
    assert [share.in_context for share in found] == [pytest.approx(1.0)] * 2
    assert 0.05 < found[1].best < 0.6
    assert found[0].in_force < 0.2
    assert found[1].in_force == pytest.approx(found[1].best, abs=0.05)  # the fit of the same rows


def test_the_first_look_is_left_out_of_the_means_and_kinds_are_told_by_their_names():
    network = replace(NETWORKS["docs-micro"], kinds={r"\.point1$": "one", r"\.point$": "all", "none": "nothing"})
    shares = [
        Share("b.point1", 0, 9, 9, 9, 9),
        Share("b.point1", 1, 0.5, 0.3, 0.6, 0.4),
        Share("c.point1", 1, 0.7, 0.5, 0.8, 0.2),
        Share("b.point", 1, 1.0, 0.9, 1.0, 0.0),
    ]
    means = by_kind(network, shares)
    assert means == pytest.approx(
        {"best, one": 0.6, "above, one": 0.4, "in_context, one": 0.7, "in_force, one": 0.3}
        | {"best, all": 1.0, "above, all": 0.9, "in_context, all": 1.0, "in_force, all": 0.0}
    )


def test_the_error_above_the_last_norm_is_that_of_the_vocabulary_projection():
    torch.manual_seed(0)
    model = LanguageModel(7, Preset(method="bp", error_at="norm", layers=2, d_model=4, d_ff=8, heads=2, chunk=5))
    tokens, noted = torch.randint(0, 7, (3, 5)), []
    with noting_the_error_above(noted):
        logits = model(tokens)
        logits.retain_grad()
        logits.square().sum().backward()
        torch.testing.assert_close(noted, [(logits.grad @ model.decoder.weight.detach()).flatten(0, 1)])
    assert not noted


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_has_the_rate_that_is_best_for_fitted_on_the_committed_board(name):
    lines = read(ROOT / "results" / "scoreboard" / f"{name}.jsonl")
    assert best_rate(COLUMNS[name], "fitted", lines) == NETWORKS[name].rate


@pytest.mark.parametrize("name", ["docs-micro", "fc-cifar", "lenet-cifar"])
def test_a_run_finds_every_number_of_its_rows(name, monkeypatch):
    own = [cell for cell in CEILING.cells if cell.key == name]
    result = ceiling.run(own[0], 0, RunContext(scale="quick"))
    for cell in own:
        assert math.isfinite(result["metrics"][cell.metric])
    assert result["method"] == "fitted"
    assert set(MEASURES) >= {cell.metric.partition(",")[0] for cell in own}
