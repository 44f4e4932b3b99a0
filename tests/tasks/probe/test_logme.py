"""LogME against a direct maximisation of the evidence as a normal density, and its laws."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from vision_transfer.tasks.probe.scores import log_evidence, logme


def evidence_by_density(features, target):
    """max over α, β of log N(target; 0, F Fᵀ / α + I / β) / n: the weights integrated out, and no SVD."""
    count = len(target)

    def negative(logs):
        alpha, beta = np.exp(logs)
        covariance = features @ features.T / alpha + np.eye(count) / beta
        return -multivariate_normal(np.zeros(count), covariance).logpdf(target) / count

    starts = ([0.0, 0.0], [4.0, 1.0], [-3.0, 3.0])
    bounds = [(-20, 20), (-20, 20)]
    found = [
        minimize(negative, start, method="Nelder-Mead", bounds=bounds, options={"xatol": 1e-7, "fatol": 1e-11})
        for start in starts
    ]
    return -min(one.fun for one in found)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize(("examples", "width"), [(40, 5), (40, 40), (30, 60)])
def test_largest_evidence_is_found(rng, examples, width):
    features = np.maximum(rng.normal(size=(examples, width)), 0)
    signal = features @ rng.normal(size=width) / np.sqrt(width)
    target = (signal + rng.normal(size=examples) * 0.3 > np.median(signal)).astype(np.float64)
    found = log_evidence(features, target[:, None])[0]
    assert found == pytest.approx(evidence_by_density(features, target), abs=2e-5)


def test_score_is_the_mean_over_classes(rng):
    features, labels = np.abs(rng.normal(size=(45, 6))), rng.integers(0, 3, 45)
    expected = np.mean([evidence_by_density(features, (labels == one).astype(np.float64)) for one in range(3)])
    assert logme(features.astype(np.float32), labels, 3) == pytest.approx(expected, abs=2e-5)
    assert logme(features, labels, 5) == pytest.approx(expected, abs=2e-5)  # classes without images


def test_scale_rotation_and_order_do_not_matter(rng):
    features, labels = rng.normal(size=(60, 10)), rng.integers(0, 2, 60)
    features[:, 0] += labels
    expected = logme(features, labels, 2)
    rotation = np.linalg.qr(rng.normal(size=(10, 10)))[0]
    order = rng.permutation(60)
    assert logme(features * 1e3, labels, 2) == pytest.approx(expected, abs=1e-6)
    assert logme(features * 1e-4, labels, 2) == pytest.approx(expected, abs=1e-6)
    assert logme(features @ rotation, labels, 2) == pytest.approx(expected, abs=1e-6)
    assert logme(features[order], labels[order], 2) == pytest.approx(expected, abs=1e-6)


def test_more_informative_features_score_higher(rng):
    labels = rng.integers(0, 2, 100)
    scores = [logme(rng.normal(size=(100, 8)) + gap * labels[:, None], labels, 2) for gap in (0, 0.5, 1, 2)]
    assert scores == sorted(scores)


def test_dead_and_perfect_features_give_finite_scores(rng):
    labels = rng.integers(0, 2, 30)
    assert np.isfinite(logme(np.zeros((30, 4)), labels, 2))
    assert np.isfinite(logme(np.eye(2)[labels], labels, 2))
