"""Data that need no file: scikit-learn's digits, and the two generated tasks of Frenkel, Lefebvre and Bol 2021.

All are the same in every run and on every machine, up to the rounding of the last digit.
"""

from __future__ import annotations

import numpy as np

Samples = tuple[np.ndarray, np.ndarray]  # float32 [N, ...], and classes int64 [N] or targets float32 [N, t]

DIGITS_TEST = 360  # of 1,797 images
FEATURES = 256
TARGETS = 10
REGRESSION = (5_000, 1_000)  # vectors to train on and to test
CLASSIFICATION = (25_000, 5_000)


def digits() -> tuple[Samples, Samples]:
    """Handwritten digits, ``[N, 1, 8, 8]`` in [0, 1]: 1,437 to train on and 360 to test, with equal shares."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    x = (bunch.images[:, None] / 16).astype(np.float32)
    y = bunch.target.astype(np.int64)
    x, x_test, y, y_test = train_test_split(x, y, test_size=DIGITS_TEST, stratify=y, random_state=0)
    return (x, y), (x_test, y_test)


def drtp_regression() -> tuple[Samples, Samples]:
    """Ten waves of a noisy mean, from vectors ``[N, 256]``.

    Each vector has a mean of its own, ``mu ~ U(-pi, pi)``, and entries ``x_j ~ N(mu, 1)``. Its targets are
    ``cos(mean(x) + pi (i - 4.5) / 9)`` for i = 0..9. The author's slides write ``cos(mean(x) - pi/2 + i pi/9)``, which
    is the same. The published vectors are not known; these are 5,000 and 1,000 others.
    """
    generator = np.random.default_rng([2021, 256])
    count = sum(REGRESSION)
    mean = generator.uniform(-np.pi, np.pi, size=(count, 1))
    x = generator.normal(mean, 1.0, size=(count, FEATURES))
    shift = np.pi * (np.arange(TARGETS) - 4.5) / 9
    y = np.cos(x.mean(axis=1, keepdims=True) + shift)
    return _divided(x.astype(np.float32), y.astype(np.float32), REGRESSION[0])


def drtp_classification() -> tuple[Samples, Samples]:
    """Ten classes of five Gaussian clusters each, from vectors ``[N, 256]`` of which 128 entries carry information.

    The first 25,000 rows are for training, the other 5,000 for tests. One label in a hundred is drawn at random
    (scikit-learn's default), so that about 0.9 % of the test set cannot be learned.
    """
    from sklearn.datasets import make_classification

    x, y = make_classification(
        n_samples=sum(CLASSIFICATION),
        n_features=FEATURES,
        n_informative=128,
        n_redundant=0,
        n_repeated=0,
        n_classes=TARGETS,
        n_clusters_per_class=5,
        class_sep=4.5,
        scale=1.0,
        shuffle=True,
        random_state=0,
    )
    return _divided(x.astype(np.float32), y.astype(np.int64), CLASSIFICATION[0])


def _divided(x: np.ndarray, y: np.ndarray, train: int) -> tuple[Samples, Samples]:
    """The first `train` rows and the others."""
    return (x[:train], y[:train]), (x[train:], y[train:])
