"""Comparison of two classifiers on the same images, with exact tests of whether they differ by chance."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

# Relative difference of two sums of the same terms in another order, at most.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Paired:
    """Numbers of examples by which of two classifiers are right, and the p-value of McNemar's exact test."""

    both: int
    first_only: int
    second_only: int
    neither: int
    p_value: float


def paired(first: Bool[np.ndarray, "examples"], second: Bool[np.ndarray, "examples"]) -> Paired:
    """Compares two classifiers, given whether each is right on each example."""
    first_only, second_only = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    both, neither = int(np.sum(first & second)), int(np.sum(~first & ~second))
    return Paired(both, first_only, second_only, neither, mcnemar_exact(first_only, second_only))


def mcnemar_exact(first_only: int, second_only: int) -> float:
    """Two-sided p-value of McNemar's exact test (1947): each disagreement is a fair coin; 1 if there is none."""
    from scipy.stats import binomtest

    disagreements = first_only + second_only
    return float(binomtest(first_only, disagreements, 0.5).pvalue) if disagreements else 1.0


def within_one_standard_error(one: Bool[np.ndarray, "examples"], best: Bool[np.ndarray, "examples"]) -> bool:
    """Whether a classifier is at most one standard error less accurate than the best, given what each has right.

    The one-standard-error rule (Breiman et al. 1984, section 3.4.3), for choosing a simpler or cheaper classifier. The
    standard error is that of the mean difference of the paired outcomes: examples on which both are right or both are
    wrong say nothing about their difference.
    """
    differences = best.astype(float) - one.astype(float)
    examples = len(differences)
    if examples < 2:
        return bool(np.mean(differences) <= 0)
    standard_error = np.std(differences, ddof=1) / np.sqrt(examples)
    # One example in one direction is exactly one standard error, whatever rounding says.
    return bool(np.mean(differences) <= standard_error * (1 + ROUNDING))


def paired_over_repeats(
    first: Bool[np.ndarray, "repeats examples"], second: Bool[np.ndarray, "repeats examples"]
) -> float:
    """Two-sided p-value that two ways of training, each repeated several times, are equally accurate.

    The unit is the example, because the repeats' predictions for one image are correlated; treating each repeat as
    further images would make p too small. An image's difference is the number of repeats of the first way that are
    right on it minus those of the second. If both are equally accurate its sign is a fair coin (Fisher's randomisation
    test of paired differences, 1935); the distribution is exact, not sampled, and with one repeat this is McNemar's
    exact test. It generalises from these trained networks to other images; the effect of training again shows in the
    spread of the repeats.
    """
    differences = np.sum(first, axis=0, dtype=np.int64) - np.sum(second, axis=0, dtype=np.int64)
    sizes = np.abs(differences)
    probabilities = np.ones(1)
    for size in range(1, len(first) + 1):
        probabilities = np.convolve(probabilities, _signed_sum(size, int(np.sum(sizes == size))))
    sums = np.arange(len(probabilities)) - len(probabilities) // 2
    return min(1.0, float(np.sum(probabilities[np.abs(sums) >= abs(np.sum(differences))])))


def _signed_sum(size: int, count: int) -> Float[np.ndarray, "sums"]:
    """Probabilities of the sums -size·count … size·count of `count` numbers ±size, each sign a fair coin."""
    from scipy.stats import binom

    probabilities = np.zeros(2 * size * count + 1)
    probabilities[:: 2 * size] = binom.pmf(np.arange(count + 1), count, 0.5)
    return probabilities
