"""Whether probabilities mean what they say: confidence against accuracy, in bins."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int, Int64

# Bins of Guo et al. 2017 (arXiv:1706.04599), whose figures others compare with.
BINS = 15


@dataclass(frozen=True)
class Reliability:
    """Examples in bins of equal width by confidence, the probability of the predicted class.

    Attributes:
        edges: `(bins + 1,)` from 0 to 1; a confidence on an edge counts for the bin below it.
        counts: `(bins,)` examples in each bin.
        hits: `(bins,)` of them classified rightly.
        confidence: `(bins,)` mean confidence; NaN in an empty bin.
    """

    edges: Float64[np.ndarray, "edges"]
    counts: Int64[np.ndarray, "bins"]
    hits: Int64[np.ndarray, "bins"]
    confidence: Float64[np.ndarray, "bins"]

    @property
    def accuracy(self) -> Float64[np.ndarray, "bins"]:
        """Share classified rightly in each bin; NaN in an empty one."""
        return np.divide(self.hits, self.counts, out=np.full(len(self.counts), np.nan), where=self.counts > 0)


def reliability(
    probabilities: Float[np.ndarray, "examples classes"], labels: Int[np.ndarray, "examples"], bins: int = BINS
) -> Reliability:
    """Confidence and accuracy in bins of equal width.

    Args:
        probabilities: of all classes; rows sum to 1.
        labels: class numbers.
        bins: how many, from 1.

    Raises:
        ValueError: no bins, or as many labels as rows are not there.
    """
    if bins < 1 or len(labels) != len(probabilities):
        raise ValueError(f"{bins} bins, {len(labels)} labels, {len(probabilities)} rows of probabilities")
    edges = np.linspace(0, 1, bins + 1)
    if not len(labels):
        return Reliability(edges, np.zeros(bins, np.int64), np.zeros(bins, np.int64), np.full(bins, np.nan))
    wide = probabilities.astype(np.float64)
    confidence, hit = wide.max(axis=1), wide.argmax(axis=1) == labels
    places = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    counts = np.bincount(places, minlength=bins)
    sums = np.bincount(places, weights=confidence, minlength=bins)
    means = np.divide(sums, counts, out=np.full(bins, np.nan), where=counts > 0)
    return Reliability(edges, counts, np.bincount(places[hit], minlength=bins), means)


def expected_calibration_error(
    probabilities: Float[np.ndarray, "examples classes"], labels: Int[np.ndarray, "examples"], bins: int = BINS
) -> float:
    """Mean over the examples of |accuracy - mean confidence| of their bin (Naeini 2015; Guo 2017, equation 3).

    Args:
        probabilities: of all classes; rows sum to 1.
        labels: class numbers.
        bins: of equal width.

    Returns:
        0 to 1; NaN without examples.
    """
    if not len(labels):
        return float("nan")
    found = reliability(probabilities, labels, bins)
    filled = found.counts > 0
    gaps = np.abs(found.accuracy[filled] - found.confidence[filled])
    return float(np.sum(found.counts[filled] * gaps) / len(labels))
