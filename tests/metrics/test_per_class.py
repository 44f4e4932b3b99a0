"""Figures of each class against scikit-learn."""

import math

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, precision_recall_fscore_support

from vision_transfer.metrics.per_class import per_class


@pytest.mark.parametrize("classes", [2, 5])
def test_figures_are_scikit_learns(classes):
    rng = np.random.default_rng(classes)
    labels, predicted = rng.integers(0, classes, 300), rng.integers(0, classes, 300)
    found = per_class(confusion_matrix(labels, predicted))
    expected = precision_recall_fscore_support(labels, predicted)
    for ours, theirs in zip((found.precision, found.recall, found.f1, found.support), expected, strict=True):
        np.testing.assert_allclose(ours, theirs)
    assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels, predicted))


def test_what_is_not_defined_is_no_number():
    # class 1 is never predicted, class 2 has no examples and is predicted once, class 3 is neither
    found = per_class(np.array([[3, 0, 1, 0], [2, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]))
    np.testing.assert_allclose(found.precision, [0.6, math.nan, 0, math.nan])
    np.testing.assert_allclose(found.recall, [0.75, 0, math.nan, math.nan])
    np.testing.assert_allclose(found.f1, [2 / 3, 0, 0, math.nan])
    assert found.balanced_accuracy == pytest.approx(0.375)
    assert math.isnan(per_class(np.zeros((2, 2), int)).balanced_accuracy)
