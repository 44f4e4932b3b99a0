"""Two classifiers on the same images: where they differ, and whether chance alone would make them differ as much."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool


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
