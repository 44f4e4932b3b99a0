"""Metrics of how scores rank images: ROC and precision-recall curves, areas under them, and top-k accuracy.

Each class is compared with all others (one against the rest). Scores are log-odds, which do not saturate as
probabilities do: two confident images would be tied at a probability of 1.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int64

# Of top-k accuracy, as ImageNet's; with fewer classes one less than there are.
TOP = 5


@dataclass(frozen=True)
class Counts:
    """Numbers of true and false positives where all scores ≥ a threshold count as positive.

    `thresholds` are the distinct scores, falling; `positives` and `negatives` count all examples.
    """

    thresholds: Float64[np.ndarray, "distinct"]
    true_positives: Int64[np.ndarray, "distinct"]
    false_positives: Int64[np.ndarray, "distinct"]
    positives: int
    negatives: int

    @property
    def false_positive_rate(self) -> Float64[np.ndarray, "points"]:
        """The x of the ROC curve, from 0; NaN without negatives."""
        return np.append(0, self.false_positives) / (self.negatives or np.nan)

    @property
    def recall(self) -> Float64[np.ndarray, "points"]:
        """The y of the ROC curve and the x of the precision-recall curve, from 0; NaN without positives."""
        return np.append(0, self.true_positives) / (self.positives or np.nan)

    @property
    def precision(self) -> Float64[np.ndarray, "distinct"]:
        """The y of the precision-recall curve, at the recalls after the first."""
        return self.true_positives / (self.true_positives + self.false_positives)

    @property
    def roc_auc(self) -> float:
        """Area under the ROC curve: a positive has the higher score than a negative, a tie counting half."""
        return float(np.trapezoid(self.recall, self.false_positive_rate))

    @property
    def average_precision(self) -> float:
        """Precision averaged over the steps of recall, without interpolation (as scikit-learn's).

        NaN without positives or negatives.
        """
        return float(np.sum(np.diff(self.recall) * self.precision)) if self.negatives else np.nan


@dataclass(frozen=True)
class Ranking:
    """Areas of each class against the rest, NaN where the class or the rest has no examples; and top-k accuracy.

    `top_accuracy` is None with two classes, where k would be 1.
    """

    roc_auc: Float64[np.ndarray, "classes"]
    average_precision: Float64[np.ndarray, "classes"]
    k: int
    top_accuracy: float | None


def counts_by_threshold(scores: Float[np.ndarray, "examples"], positive: Bool[np.ndarray, "examples"]) -> Counts:
    """True and false positives at each distinct score."""
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order].astype(np.float64), np.cumsum(positive[order])
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1) if len(ranked) else np.zeros(0, np.int64)
    positives = int(np.sum(positive))
    return Counts(ranked[last], hits[last], last + 1 - hits[last], positives, len(scores) - positives)


def log_odds(log_probabilities: Float64[np.ndarray, "examples classes"]) -> Float64[np.ndarray, "examples classes"]:
    """log(p / (1 - p)) of each class, exact also where p rounds to 1."""
    if log_probabilities.shape[1] == 2:  # exactly opposite, so that both classes have the same area
        return log_probabilities - log_probabilities[:, ::-1]
    rows, best = np.arange(len(log_probabilities)), log_probabilities.argmax(axis=1)
    others = log_probabilities.copy()
    others[rows, best] = -np.inf
    # all but the best have p <= 1/2, where 1 - p does not cancel
    rest = np.log(-np.expm1(np.minimum(others, -np.log(2))))
    rest[rows, best] = np.logaddexp.reduce(others, axis=1)
    return log_probabilities - rest


def ranking(log_probabilities: Float64[np.ndarray, "examples classes"], labels: Int[np.ndarray, "examples"]) -> Ranking:
    """All metrics of ranking."""
    scores, classes = log_odds(log_probabilities), log_probabilities.shape[1]
    found = [counts_by_threshold(scores[:, label], labels == label) for label in range(classes)]
    k = min(TOP, classes - 1)
    return Ranking(
        np.array([one.roc_auc for one in found]),
        np.array([one.average_precision for one in found]),
        k,
        top_k_accuracy(log_probabilities, labels, k) if k > 1 and len(labels) else None,
    )


def top_k_accuracy(scores: Float[np.ndarray, "examples classes"], labels: Int[np.ndarray, "examples"], k: int) -> float:
    """Share of examples with fewer than k classes of a higher score than the label's, or of an equal one before it."""
    own = scores[np.arange(len(labels)), labels][:, None]
    before = np.arange(scores.shape[1]) < labels[:, None]
    return float(np.mean(np.sum((scores > own) | ((scores == own) & before), axis=1) < k))


def mean_defined(values: Float64[np.ndarray, "classes"]) -> float:
    """The macro mean over the classes where a metric is defined; NaN if it is for none."""
    defined = values[~np.isnan(values)]
    return float(np.mean(defined)) if len(defined) else float("nan")
