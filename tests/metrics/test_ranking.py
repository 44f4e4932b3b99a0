"""Metrics of ranking against scikit-learn, and the laws that they follow."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax
from sklearn.metrics import (
    average_precision_score,
    cohen_kappa_score,
    matthews_corrcoef,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
    top_k_accuracy_score,
)

from vision_transfer.metrics.classification import cohen_kappa, evaluate_test, matthews, per_class, wilson_interval
from vision_transfer.metrics.ranking import counts_by_threshold, log_odds, ranking, top_k_accuracy

# Few values, so that many scores are tied.
tied_scores = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40).filter(
    lambda rows: 0 < sum(positive for _, positive in rows) < len(rows)
)


def split(rows):
    scores, positive = zip(*rows, strict=True)
    return np.array(scores, np.float64), np.array(positive)


@settings(deadline=None)
@given(tied_scores)
def test_areas_and_curves_agree_with_scikit_learn_also_with_ties(rows):
    scores, positive = split(rows)
    found = counts_by_threshold(scores, positive)
    assert found.roc_auc == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)
    assert found.average_precision == pytest.approx(average_precision_score(positive, scores), abs=1e-12)
    false_positive_rate, recall, _ = roc_curve(positive, scores, drop_intermediate=False)
    np.testing.assert_allclose(found.false_positive_rate, false_positive_rate)
    np.testing.assert_allclose(found.recall, recall)
    precision, recall, thresholds = precision_recall_curve(positive, scores)
    np.testing.assert_allclose(found.precision, precision[:-1][::-1])
    np.testing.assert_array_equal(found.thresholds, thresholds[::-1])


@given(tied_scores)
def test_monotone_transforms_keep_the_area_and_flipped_scores_give_its_complement(rows):
    scores, positive = split(rows)
    area = counts_by_threshold(scores, positive).roc_auc
    assert counts_by_threshold(np.exp(scores / 3) * 7 - 2, positive).roc_auc == area
    assert counts_by_threshold(-scores, positive).roc_auc == pytest.approx(1 - area, abs=1e-12)
    assert counts_by_threshold(np.zeros(len(scores)), positive).roc_auc == 0.5


@pytest.mark.parametrize("classes", [2, 3, 8])
def test_all_metrics_of_a_split_agree_with_scikit_learn(classes):
    rng = np.random.default_rng(classes)
    logits, labels = rng.normal(0, 2, (300, classes)), rng.integers(0, classes, 300)
    log_probabilities = log_softmax(logits, axis=1)
    found, shares = ranking(log_probabilities, labels), np.exp(log_probabilities)
    for label in range(classes):
        assert found.roc_auc[label] == pytest.approx(roc_auc_score(labels == label, shares[:, label]), abs=1e-12)
        expected = average_precision_score(labels == label, shares[:, label])
        assert found.average_precision[label] == pytest.approx(expected, abs=1e-12)
    if classes > 2:
        assert found.k == min(5, classes - 1)
        assert found.top_accuracy == pytest.approx(top_k_accuracy_score(labels, shares, k=found.k))
    else:
        assert found.top_accuracy is None
    confusion, predicted = np.array(evaluate_test(logits, labels).confusion), shares.argmax(axis=1)
    assert cohen_kappa(confusion) == pytest.approx(cohen_kappa_score(labels, predicted), abs=1e-12)
    assert matthews(confusion) == pytest.approx(matthews_corrcoef(labels, predicted), abs=1e-12)


def test_confident_images_are_not_tied_though_their_probabilities_are():
    logits = np.array([[0.0, 50.0], [0.0, 40.0], [0.0, 45.0]])
    assert len(set(np.exp(log_softmax(logits, axis=1))[:, 1])) == 1
    np.testing.assert_allclose(log_odds(log_softmax(logits, axis=1))[:, 1], [50, 40, 45])
    assert ranking(log_softmax(logits, axis=1), np.array([1, 0, 0])).roc_auc[1] == 1


def test_one_hit_among_equal_scores_is_not_counted_for_all_classes():
    assert top_k_accuracy(np.zeros((4, 4)), np.arange(4), 2) == 0.5


def test_what_is_not_defined_is_nan():
    found = ranking(log_softmax(np.eye(3), axis=1), np.array([0, 0, 1]))
    assert np.isnan(found.roc_auc[2])
    assert np.isnan(found.average_precision[2])
    alone = counts_by_threshold(np.array([0.1, 0.7, 0.3]), np.ones(3, bool))
    assert np.isnan(alone.roc_auc) and np.isnan(alone.average_precision), "precision would be 1 for any scores"
    assert np.isnan(cohen_kappa(np.array([[3, 0], [0, 0]])))
    assert np.isnan(matthews(np.array([[3, 0], [1, 0]])))


def test_intervals_of_each_class_are_wilsons():
    found = per_class(np.array([[8, 2, 0], [1, 9, 0], [0, 0, 0]]))
    assert found.recall_ci95 == [wilson_interval(8, 10), wilson_interval(9, 10), None]
    assert found.precision_ci95 == [wilson_interval(8, 9), wilson_interval(9, 11), None]
