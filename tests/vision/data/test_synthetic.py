"""The data that need no file: what they are, and that they are the same every time."""

import numpy as np
import pytest
import torch

from vision.data.sets import load_data
from vision.data.synthetic import digits, drtp_classification, drtp_regression


@pytest.mark.parametrize("draw", [digits, drtp_regression, drtp_classification])
def test_samples_do_not_depend_on_any_global_generator_and_leave_it_alone(draw):
    first = draw()
    np.random.seed(123)
    torch.manual_seed(123)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    second = draw()
    assert all(
        np.array_equal(a, b) for one, two in zip(first, second, strict=True) for a, b in zip(one, two, strict=True)
    )
    assert np.array_equal(np.random.get_state()[1], before[0])
    assert torch.equal(torch.get_rng_state(), before[1])


def test_digits_are_scikit_learns_each_once():
    from sklearn.datasets import load_digits

    (x, y), (x_test, y_test) = digits()
    assert (x.shape, x_test.shape, x.dtype, y.dtype) == ((1437, 1, 8, 8), (360, 1, 8, 8), np.float32, np.int64)
    ours = np.concatenate([np.concatenate([x, x_test]).reshape(1797, 64), np.concatenate([y, y_test])[:, None]], axis=1)
    bunch = load_digits()
    theirs = np.concatenate([bunch.data / 16, bunch.target[:, None]], axis=1)
    np.testing.assert_allclose(ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)], rtol=1e-6)
    assert np.bincount(y_test).min() >= 34
    assert np.bincount(y_test).max() <= 38


def test_regression_targets_are_cosines_of_the_mean_at_ten_shifts():
    (x, t), (x_test, t_test) = drtp_regression()
    assert (x.shape, t.shape, x_test.shape, t_test.shape) == ((5000, 256), (5000, 10), (1000, 256), (1000, 10))
    assert x.dtype == t.dtype == np.float32
    mean = x_test.astype(np.float64).mean(axis=1)
    for i in range(10):
        np.testing.assert_allclose(t_test[:, i], np.cos(mean - np.pi / 2 + i * np.pi / 9), atol=2e-6)


def test_regression_inputs_are_normal_about_a_uniform_mean():
    (x, _), _ = drtp_regression()
    mean = x.mean(axis=1)
    assert np.abs(mean).max() < np.pi + 0.35
    quarters = np.histogram(mean, bins=[-4, -np.pi / 2, 0, np.pi / 2, 4])[0]
    assert np.abs(quarters - 1250).max() < 150
    assert x.std(axis=1).mean() == pytest.approx(1.0, abs=0.01)
    away = (x - mean[:, None]).ravel()
    assert [np.mean(np.abs(away) < k) for k in (1, 2)] == pytest.approx([0.683, 0.954], abs=0.005)


def test_classification_has_ten_classes_in_half_of_the_features():
    (x, y), (x_test, y_test) = drtp_classification()
    assert (x.shape, x_test.shape, x.dtype, y.dtype) == ((25000, 256), (5000, 256), np.float32, np.int64)
    assert np.abs(np.bincount(y) - 2500).max() < 100
    assert np.abs(np.bincount(y_test) - 500).max() < 100
    spread = np.sort(x.std(axis=0))
    assert spread[127] < 1.1 < 3 < spread[128]  # 128 features of noise alone


def test_classification_takes_more_than_a_linear_classifier():
    (x, y), (x_test, y_test) = drtp_classification()
    x, x_test = (np.hstack([part, np.ones((len(part), 1))]) for part in (x, x_test))
    weights = np.linalg.lstsq(x, np.eye(10)[y], rcond=None)[0]
    error = (x_test.dot(weights).argmax(axis=1) != y_test).mean()
    assert 0.05 < error < 0.25  # published for shallow training: 9.57 %


def test_a_regression_has_targets_and_no_classes():
    data = load_data("drtp-regression")
    assert (data.classes, data.outputs, data.shape) == (None, 10, (256,))
    assert (data.train.y.dtype, tuple(data.test.y.shape)) == (torch.float32, (1000, 10))


def test_generated_classes_are_ids():
    data = load_data("drtp-classification")
    assert (data.classes, data.outputs, data.shape, data.train.y.dtype) == (10, 10, (256,), torch.int64)
