"""Calibration of probabilities: confidence against accuracy, in bins."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int, Int64

from vision_transfer.metrics.classification import ratio

# As in Guo et al. 2017 (arXiv:1706.04599), whose values are the usual reference.
BINS = 15


@dataclass(frozen=True)
class Reliability:
    """Examples in bins of equal width by confidence, the probability of the predicted class.

    A confidence on an edge counts for the bin below it. By bin, `hits` is the number of correctly classified examples,
    and `confidence` the mean, NaN in an empty bin.
    """

    edges: Float64[np.ndarray, "edges"]
    counts: Int64[np.ndarray, "bins"]
    hits: Int64[np.ndarray, "bins"]
    confidence: Float64[np.ndarray, "bins"]

    @property
    def accuracy(self) -> Float64[np.ndarray, "bins"]:
        """Correctly classified share of each bin; NaN in an empty bin."""
        return ratio(self.hits, self.counts)


def reliability(
    probabilities: Float[np.ndarray, "examples classes"], labels: Int[np.ndarray, "examples"], bins: int = BINS
) -> Reliability:
    """Confidence and accuracy in bins of equal width, from probabilities of all classes.

    Raises:
        ValueError: no bins, or the numbers of labels and of rows differ.
    """
    if bins < 1 or len(labels) != len(probabilities):
        raise ValueError(f"{bins} bins, {len(labels)} labels, {len(probabilities)} rows of probabilities")
    edges = np.linspace(0, 1, bins + 1)
    wide = probabilities.astype(np.float64)
    confidence, hit = wide.max(axis=1), wide.argmax(axis=1) == labels
    places = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    counts = np.bincount(places, minlength=bins)
    means = ratio(np.bincount(places, weights=confidence, minlength=bins), counts)
    return Reliability(edges, counts, np.bincount(places[hit], minlength=bins), means)


def expected_calibration_error(
    probabilities: Float[np.ndarray, "examples classes"], labels: Int[np.ndarray, "examples"], bins: int = BINS
) -> float:
    """Mean over all examples of |accuracy - mean confidence| of the example's bin; NaN without examples.

    Naeini 2015; Guo 2017, equation 3.
    """
    if not len(labels):
        return float("nan")
    found = reliability(probabilities, labels, bins)
    filled = found.counts > 0
    gaps = np.abs(found.accuracy[filled] - found.confidence[filled])
    return float(np.sum(found.counts[filled] * gaps) / len(labels))
