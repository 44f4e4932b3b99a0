"""The interval of an accuracy that was measured out of fold, each image by a model of another part of the data."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

from vision_transfer.metrics.classification import TestResult, class_log_probabilities, evaluate_test, wilson_interval


def evaluate_out_of_fold(
    logits: Float[np.ndarray, "examples outputs"],
    labels: Int[np.ndarray, "examples"],
    folds: Int[np.ndarray, "examples"],
) -> TestResult:
    """Metrics of the predictions for all folds together, with the number of folds and `out_of_fold_interval`."""
    correct = np.argmax(class_log_probabilities(logits), axis=1) == labels
    found = evaluate_test(logits, labels)
    return replace(found, accuracy_ci95=out_of_fold_interval(correct, folds), folds=len(np.unique(folds)))


def out_of_fold_interval(
    correct: Bool[np.ndarray, "examples"], folds: Integer[np.ndarray, "examples"]
) -> tuple[float, float]:
    """An approximate 95 % interval of the accuracy on new images, from whether each image was classified correctly.

    Wilson's interval over all images takes them as independent. Images of a fold have a model in common, and perhaps a
    patient or a scene, so the accuracies of folds may differ by more than chance; no unbiased estimate of the variance
    exists (Bengio and Grandvalet 2004, JMLR 5:1089), and intervals that ignore this are too narrow (Bates, Hastie and
    Tibshirani 2024, JASA 119:1434). So the interval is as wide as Student's for the mean of the folds' accuracies, if
    that is the wider one: the images count as that many independent ones. Student's knows the variance from a few folds
    only and is often the wider one by chance, so the interval errs on the wide side, most with two folds. The models of
    the folds saw fewer images than one trained on all, so the accuracy itself errs on the low side.
    `tests/metrics/measure_fold_coverage.py` measures how often the interval holds the accuracy on new images.
    """
    from scipy.stats import norm, t

    numbers, places = np.unique(folds, return_inverse=True)
    sizes = np.bincount(places)
    accuracy, accuracies = correct.mean(), np.bincount(places, weights=correct) / sizes
    images = float(len(correct))
    by_images = accuracy * (1 - accuracy) / images
    by_folds = float(np.sum(sizes / images * (accuracies - accuracy) ** 2) / max(len(numbers) - 1, 1))
    # Student's interval is normal deviates of this variance wide
    by_folds *= float(t.ppf(0.975, max(len(numbers) - 1, 1)) / norm.ppf(0.975)) ** 2
    if by_folds > by_images > 0:
        images *= by_images / by_folds
    return wilson_interval(accuracy * images, images)
