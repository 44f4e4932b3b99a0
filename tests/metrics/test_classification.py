"""Metrics against scikit-learn, intervals against published values."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import expit, softmax
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
)

from vision_transfer.metrics.classification import (
    class_log_probabilities,
    evaluate_test,
    metrics,
    per_class,
    wilson_interval,
)


@pytest.fixture(params=[1, 2, 4])
def case(request):
    """Logits, labels and the classes' probabilities."""
    rng = np.random.default_rng(request.param)
    logits = rng.normal(0, 2, (200, request.param)).astype(np.float32)
    classes = max(2, request.param)
    wide = logits.astype(np.float64)
    positive = expit(wide)
    probabilities = np.concatenate([1 - positive, positive], 1) if classes > logits.shape[1] else softmax(wide, 1)
    return logits, rng.integers(0, classes, 200), probabilities


def test_metrics_agree_with_scikit_learn(case):
    logits, labels, probabilities = case
    found = metrics(logits, labels)
    assert found.loss == pytest.approx(log_loss(labels, probabilities), rel=1e-9)
    assert found.accuracy == accuracy_score(labels, probabilities.argmax(1))


def test_the_test_result_agrees_with_scikit_learn(case):
    logits, labels, probabilities = case
    found = evaluate_test(logits, labels)
    np.testing.assert_array_equal(found.confusion, confusion_matrix(labels, probabilities.argmax(1)))
    assert found.examples == 200
    assert np.trace(found.confusion) / 200 == found.accuracy
    expected = stats.binomtest(np.trace(found.confusion).item(), 200).proportion_ci(0.95, "wilson")
    np.testing.assert_allclose(found.accuracy_ci95, expected, rtol=1e-12)


def test_probabilities_sum_to_one(case):
    np.testing.assert_allclose(np.exp(class_log_probabilities(case[0])).sum(1), 1, rtol=1e-12)


def test_a_class_that_never_occurs_has_its_row():
    found = evaluate_test(np.eye(3, dtype=np.float32)[[0, 0, 2]], np.array([0, 0, 2]))
    assert found.confusion == [[2, 0, 0], [0, 0, 0], [0, 0, 1]]


def test_the_loss_of_a_confident_error_is_finite():
    assert metrics(np.float32([[1000.0]]), np.array([0])).loss == pytest.approx(1000)
    assert metrics(np.float32([[1000.0, 0]]), np.array([1])).loss == pytest.approx(1000)


def test_a_logit_that_is_not_finite_gives_nan():
    assert np.isnan(metrics(np.float32([[np.nan, 0], [0, 1]]), np.array([0, 1])).loss)


@pytest.mark.parametrize(
    ("successes", "trials", "expected"),
    [
        # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3.
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_wilson_intervals_agree_with_newcombe(successes, trials, expected):
    assert wilson_interval(successes, trials) == pytest.approx(expected, abs=5e-5)


@given(st.integers(1, 5000).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials))))
def test_wilson_intervals_agree_with_scipy(case):
    successes, trials = case
    low, high = wilson_interval(successes, trials)
    expected = stats.binomtest(successes, trials).proportion_ci(0.95, "wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert 0 <= low <= successes / trials <= high <= 1 or successes in (0, trials)


@pytest.mark.parametrize("classes", [2, 5])
def test_metrics_of_each_class_agree_with_scikit_learn(classes):
    rng = np.random.default_rng(classes)
    labels, predicted = rng.integers(0, classes, 300), rng.integers(0, classes, 300)
    found = per_class(confusion_matrix(labels, predicted))
    expected = precision_recall_fscore_support(labels, predicted)
    for ours, theirs in zip((found.precision, found.recall, found.f1, found.support), expected, strict=True):
        np.testing.assert_allclose(ours, theirs)
    assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels, predicted))


def test_undefined_metrics_are_nan():
    # Class 1 is never predicted; class 2 has no examples but is predicted once; class 3 has neither.
    found = per_class(np.array([[3, 0, 1, 0], [2, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]))
    np.testing.assert_allclose(found.precision, [0.6, math.nan, 0, math.nan])
    np.testing.assert_allclose(found.recall, [0.75, 0, math.nan, math.nan])
    np.testing.assert_allclose(found.f1, [2 / 3, 0, 0, math.nan])
    assert found.balanced_accuracy == pytest.approx(0.375)
    assert math.isnan(per_class(np.zeros((2, 2), int)).balanced_accuracy)
