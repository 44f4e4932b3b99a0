"""Thresholds against trying every one, and the risk-coverage curve against values by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import precision_score, recall_score

from vision_transfer.metrics.decision import (
    ABOVE_ALL,
    risk_coverage,
    threshold_by_cost,
    threshold_by_precision,
    threshold_by_recall,
    threshold_by_risk,
)

examples = st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=1, max_size=30)
shares = st.floats(0.01, 1)


def split(rows):
    scores, positive = zip(*rows, strict=True)
    return np.array(scores) / 20, np.array(positive)


def every_choice(scores):
    """Predictions of every threshold that differs on these scores."""
    return [scores >= threshold for threshold in (*np.unique(scores), ABOVE_ALL)]


@given(examples, st.floats(0.1, 10), st.floats(0.1, 10))
def test_no_other_threshold_costs_less(rows, false_positive, false_negative):
    scores, positive = split(rows)

    def cost(accepted):
        return false_positive * np.sum(accepted & ~positive) + false_negative * np.sum(~accepted & positive)

    chosen = scores >= threshold_by_cost(scores, positive, (false_positive, false_negative))
    assert cost(chosen) <= min(map(cost, every_choice(scores))) + 1e-9


@given(examples, shares)
def test_the_recall_wanted_is_reached_with_as_few_accepted_as_possible(rows, least):
    scores, positive = split(rows)
    threshold = threshold_by_recall(scores, positive, least)
    if not positive.any():
        assert threshold is None
        return
    reached = [one for one in every_choice(scores) if recall_score(positive, one, zero_division=0) >= least]
    assert np.sum(scores >= threshold) == min(map(np.sum, reached))


@given(examples, shares)
def test_the_precision_wanted_is_reached_with_as_many_found_as_possible(rows, least):
    scores, positive = split(rows)
    threshold = threshold_by_precision(scores, positive, least)
    reached = [
        one
        for one in every_choice(scores)
        if np.sum(one & positive) and precision_score(positive, one, zero_division=0) >= least
    ]
    if not reached:
        assert threshold is None
        return
    chosen = scores >= threshold
    assert precision_score(positive, chosen) >= least
    assert np.sum(chosen & positive) == max(np.sum(one & positive) for one in reached)


@given(examples, st.floats(0, 0.9))
def test_most_is_answered_at_the_risk_wanted(rows, risk):
    confidence, right = split(rows)
    threshold = threshold_by_risk(confidence, right, risk)
    allowed = [one for one in every_choice(confidence) if one.any() and np.mean(~right[one]) <= risk]
    if not allowed:
        assert threshold is None
        return
    answered = confidence >= threshold
    assert np.mean(~right[answered]) <= risk
    assert np.sum(answered) == max(map(np.sum, allowed))


def test_the_curve_by_hand():
    curve = risk_coverage(np.array([0.6, 0.9, 0.8, 0.7]), np.array([False, True, False, True]))
    np.testing.assert_allclose(curve.coverage, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(curve.risk, [0, 1 / 2, 1 / 3, 2 / 4])
    assert curve.area == pytest.approx((0 + 1 / 2 + 1 / 3 + 2 / 4) / 4)


def test_equal_confidences_have_the_mean_risk_everywhere():
    right = np.array([True, False, True, True])
    assert risk_coverage(np.full(4, 0.7), right).area == pytest.approx(0.25)


def test_a_threshold_lies_between_its_neighbours_and_elkans_is_kept_where_it_is_best():
    scores, positive = np.array([0.1, 0.4, 0.6, 0.9]), np.array([False, False, True, True])
    assert threshold_by_recall(scores, positive, 1.0) == pytest.approx(0.5)
    assert threshold_by_cost(scores, positive, (1.0, 1.0)) == 0.5
    assert threshold_by_cost(scores, positive, (9.0, 11.0)) == 0.45
    assert threshold_by_cost(scores, positive, (1.0, 9.0)) == pytest.approx(0.5)
    assert threshold_by_cost(np.array([0.9]), np.array([False]), (1.0, 1.0)) > 0.9


def test_of_thresholds_whose_costs_differ_by_rounding_the_one_nearest_to_elkans_is_taken():
    """Accepting all costs three times 0.1, accepting the first alone 0.3 once: 0.30000000000000004 and 0.3."""
    scores, positive = np.array([0.9, 0.5, 0.45, 0.4, 0.3]), np.array([True, False, False, False, True])
    assert threshold_by_cost(scores, positive, (0.1, 0.3)) == pytest.approx(0.25)
