"""Calibration against hand computations, scikit-learn's calibration curve, and general properties."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from vision_transfer.metrics.calibration import expected_calibration_error, reliability


def test_by_hand():
    # confidences .6 .6 .9 .9, hits yes no yes yes: two bins of ten, |.5 - .6| and |1 - .9|, each half of the examples
    probabilities = np.array([[0.6, 0.4], [0.6, 0.4], [0.1, 0.9], [0.1, 0.9]])
    assert expected_calibration_error(probabilities, np.array([0, 1, 1, 1]), bins=10) == pytest.approx(0.1)


def test_a_network_that_is_overconfident_by_a_fifth():
    probabilities = np.tile([0.8, 0.2], (100, 1))
    labels = np.array([0] * 60 + [1] * 40)
    assert expected_calibration_error(probabilities, labels) == pytest.approx(0.2)


def test_bins_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 500)
    probabilities = np.stack([1 - confidence, confidence], axis=1)
    labels = (rng.random(500) < confidence**2).astype(int)
    accuracy, mean = calibration_curve(labels, confidence, n_bins=15)
    found = reliability(probabilities, labels)
    filled = found.counts > 0
    np.testing.assert_allclose(found.accuracy[filled], accuracy)
    np.testing.assert_allclose(found.confidence[filled], mean)
    weighted = np.sum(found.counts[filled] * np.abs(accuracy - mean)) / 500
    assert expected_calibration_error(probabilities, labels) == pytest.approx(weighted)


def test_an_edge_counts_for_the_bin_below_and_1_for_the_last():
    found = reliability(np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([0, 0]), bins=2)
    assert found.counts.tolist() == [1, 1]


def test_no_examples():
    empty = np.zeros((0, 3))
    assert math.isnan(expected_calibration_error(empty, np.zeros(0, int)))
    assert reliability(empty, np.zeros(0, int)).counts.sum() == 0


def test_different_lengths_are_refused():
    with pytest.raises(ValueError, match="2 labels"):
        reliability(np.ones((3, 1)), np.array([0, 0]))


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(2, 5), st.integers(1, 20))
def test_properties(seed, examples, classes, bins):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(classes), examples)
    labels = rng.integers(0, classes, examples)
    found, error = reliability(probabilities, labels, bins), expected_calibration_error(probabilities, labels, bins)
    assert found.counts.sum() == examples
    accuracy = np.mean(probabilities.argmax(1) == labels)
    # Triangle inequality: over all examples, errors can cancel that binning keeps apart.
    assert abs(accuracy - probabilities.max(1).mean()) - 1e-9 <= error <= 1
    assert np.all(
        (found.confidence > found.edges[:-1]) & (found.confidence <= found.edges[1:] + 1e-12) | (found.counts == 0)
    )
