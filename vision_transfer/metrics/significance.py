"""Two classifiers on the same images: where they differ, and whether chance alone would make them differ as much."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float


@dataclass(frozen=True)
class Paired:
    """What two classifiers do on the same examples.

    Attributes:
        both: both are right.
        first_only: the first alone is.
        second_only: the second alone is.
        neither: neither is.
        p_value: of McNemar's exact test.
    """

    both: int
    first_only: int
    second_only: int
    neither: int
    p_value: float


def paired(first: Bool[np.ndarray, "examples"], second: Bool[np.ndarray, "examples"]) -> Paired:
    """Compares by which examples each classifies rightly.

    Args:
        first: whether the first classifier is right.
        second: the same of the second, on the same examples.
    """
    first_only, second_only = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    return Paired(
        both=int(np.sum(first & second)),
        first_only=first_only,
        second_only=second_only,
        neither=int(np.sum(~first & ~second)),
        p_value=mcnemar_exact(first_only, second_only),
    )


def mcnemar_exact(first_only: int, second_only: int) -> float:
    """Two-sided p-value of McNemar's exact test (1947): each disagreement a fair coin; 1 where there is none."""
    from scipy.stats import binomtest

    disagreements = first_only + second_only
    return float(binomtest(first_only, disagreements, 0.5).pvalue) if disagreements else 1.0


def paired_over_repeats(
    first: Bool[np.ndarray, "repeats examples"], second: Bool[np.ndarray, "repeats examples"]
) -> float:
    """Two-sided p-value that two ways of training do equally well on the examples, each trained several times.

    The example is the unit: what the repeats say of one image hangs together, so that counting each repeat's
    disagreements as if they were other images would make p too small. An image's difference is the number of repeats
    of the first that are right on it, less those of the second; if the two were equally good, its sign would be a fair
    coin (Fisher's randomisation test of paired differences, 1935). With one repeat this is McNemar's exact test. The
    distribution is exact, not drawn. It speaks of these trained networks on other images of the kind; how much
    training again would change is for the repeats' own spread to say.

    Args:
        first: whether each repeat of the first is right on each example.
        second: the same of the second, with as many repeats.
    """
    differences = np.sum(first, axis=0, dtype=np.int64) - np.sum(second, axis=0, dtype=np.int64)
    sizes = np.abs(differences)
    chances = np.ones(1)
    for size in range(1, len(first) + 1):
        chances = np.convolve(chances, _signed_sum(size, int(np.sum(sizes == size))))
    sums = np.arange(len(chances)) - len(chances) // 2
    return min(1.0, float(np.sum(chances[np.abs(sums) >= abs(np.sum(differences))])))


def _signed_sum(size: int, count: int) -> Float[np.ndarray, "sums"]:
    """Chances of the sums -size·count … size·count of `count` numbers ±size, each sign a fair coin."""
    from scipy.stats import binom

    chances = np.zeros(2 * size * count + 1)
    chances[:: 2 * size] = binom.pmf(np.arange(count + 1), count, 0.5)
    return chances
