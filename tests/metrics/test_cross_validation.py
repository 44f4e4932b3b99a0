"""The interval of an accuracy that was measured out of fold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vision_transfer.metrics.classification import wilson_interval
from vision_transfer.metrics.cross_validation import evaluate_out_of_fold, out_of_fold_interval

CORRECT = st.lists(st.booleans(), min_size=10, max_size=80).map(np.array)


@given(CORRECT, st.integers(2, 5))
def test_it_holds_the_accuracy_and_is_never_narrower_than_that_of_the_images(correct, count):
    folds = np.arange(len(correct)) % count
    low, high = out_of_fold_interval(correct, folds)
    narrow = wilson_interval(int(correct.sum()), len(correct))
    assert low - 1e-12 <= correct.mean() <= high + 1e-12, "but for rounding"
    assert high - low >= narrow[1] - narrow[0] - 1e-12


def test_equal_folds_give_wilsons_interval():
    correct = np.tile([True, True, True, False], 10)
    assert out_of_fold_interval(correct, np.arange(40) // 8) == pytest.approx(wilson_interval(30, 40))


def test_folds_that_differ_more_than_images_do_count_as_fewer_images():
    """Accuracies 1, 1, 0 and 0: the variance of the mean of four such folds is 1/12, that of 3 independent images.

    Student's 97.5 % quantile for 3 degrees of freedom is 3.1824, the normal one 1.9600 (tables).
    """
    correct, images = np.repeat([True, True, False, False], 25), 3 * (1.95996 / 3.18245) ** 2
    found = out_of_fold_interval(correct, np.arange(100) // 25)
    assert found == pytest.approx(wilson_interval(images / 2, images), rel=1e-4)


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize("deviation", [0.0, 0.05, 0.1])
def test_the_interval_holds_the_truth_in_95_of_100_however_much_folds_differ(count, deviation):
    """The folds' own accuracies vary around 0.8; Wilson's interval alone fails far too often where they do."""
    random, held, held_by_images = np.random.default_rng(0), 0, 0
    for _ in range(1000):
        own = np.clip(random.normal(0.8, deviation, count), 0, 1)
        folds = np.arange(100 * count) // 100
        correct = random.random(100 * count) < own[folds]
        low, high = out_of_fold_interval(correct, folds)
        narrow = wilson_interval(int(correct.sum()), 100 * count)
        held, held_by_images = held + (low <= 0.8 <= high), held_by_images + (narrow[0] <= 0.8 <= narrow[1])
    assert held >= 950
    assert deviation == 0 or held_by_images < 850


def test_the_metrics_say_how_many_folds_there_were():
    logits = np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 3.0]])
    found = evaluate_out_of_fold(logits, np.array([0, 1, 1, 1]), np.array([0, 0, 1, 1]))
    assert (found.folds, found.accuracy, found.confusion) == (2, 0.75, [[1, 0], [1, 2]])
