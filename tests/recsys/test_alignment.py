"""The alignment of an epoch: by the definition, on the last batch, and nothing of the training is changed by it."""

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cosine_similarity

from recsys.alignment import batch_alignment, summary
from recsys.data import DataOptions
from recsys.log.batches import Batch
from recsys.models.click_models import build_model
from recsys.train import train
from recsys.training import Training
from tests.recsys.runs import options
from tinydfa import Method

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def log():
    return DataOptions(rows=2000).load()


def test_alignment_is_the_mean_cosine_between_the_gradients_at_a_point(log):
    config = options(model="dcn", method=Method.DFA, rows=2000, device="cpu")
    training = Training(config.preset, log.field_dims, CPU)
    fields, labels = log.train.batch(slice(0, 64))
    found = batch_alignment(training, Batch(fields, labels, 64))

    plain = build_model(config.preset, log.field_dims).eval()
    plain.load_state_dict(training.model.state_dict())
    rows = plain.embedding(plain.rows(fields)).flatten(1).detach()
    hidden = plain.mlp[0](rows).detach().requires_grad_(True)  # above it there is one more hidden layer, then the top
    logits = plain.top(torch.cat([plain.cross(rows), plain.mlp[1](hidden)], dim=1)).squeeze(1)
    binary_cross_entropy_with_logits(logits, labels).backward()
    error = (torch.sigmoid(logits.detach()) - labels)[:, None]
    signal = error @ training.attachment.state_dict()["feedback_matrix"][:, : hidden.shape[1]]
    expected = cosine_similarity(signal, hidden.grad, dim=1).mean()
    assert found["alignment mlp.0.point"] == pytest.approx(expected.item(), abs=1e-5)


def test_measuring_changes_nothing_of_the_training(log):
    plain, measured = (
        train(options(model="deepfm", method=Method.DFA, epochs=2, dropout=0.2, alignment_every=every), data=log)
        for every in (None, 1)
    )
    for name, values in plain["curves"].items():
        assert measured["curves"][name] == values
    assert set(measured["metrics"]) - set(plain["metrics"]) == {"alignment", "alignment_start", "alignment_deepest"}


def test_alignment_is_measured_every_few_epochs(log):
    config = options(model="deepfm", method=Method.DFA, epochs=3, alignment_every=2)
    curves = train(config, data=log)["curves"]
    assert len(curves["val_auc"]) == 3
    assert {len(curve) for name, curve in curves.items() if name.startswith("alignment ")} == {1}


def test_the_summary_is_the_mean_over_points_after_the_last_and_the_first_epoch_and_the_last_point():
    curves = {"val_auc": [0.5, 0.6], "alignment a": [0.1, 0.4], "alignment b": [0.3, 0.8]}
    assert summary(curves) == pytest.approx({"alignment": 0.6, "alignment_start": 0.2, "alignment_deepest": 0.8})
    assert summary({"val_auc": [0.5]}) == {}
