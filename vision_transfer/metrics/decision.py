"""Thresholds on probabilities: for one of two classes by cost, recall or precision; for abstention by risk.

A threshold lies halfway between the two neighbouring scores that it separates, so that rounding moves no example.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from vision_transfer.metrics.ranking import counts_by_threshold
from vision_transfer.metrics.significance import ROUNDING

# No probability is so high: nothing is accepted.
ABOVE_ALL = float(np.nextafter(1.0, 2.0))


@dataclass(frozen=True)
class RiskCoverage:
    """Risk, the share of mistakes among the accepted examples, as ever less confident ones are accepted.

    Geifman & El-Yaniv 2017 (arXiv:1705.08500). `thresholds` are the distinct confidences, falling; `accepted` and
    `mistakes` count the examples at or above each.
    """

    thresholds: Float64[np.ndarray, "distinct"]
    accepted: Int64[np.ndarray, "distinct"]
    mistakes: Int64[np.ndarray, "distinct"]

    @property
    def coverage(self) -> Float64[np.ndarray, "distinct"]:
        """Share of the examples that are accepted."""
        return self.accepted / self.accepted[-1]

    @property
    def risk(self) -> Float64[np.ndarray, "distinct"]:
        """Share of mistakes among them."""
        return self.mistakes / self.accepted

    @property
    def area(self) -> float:
        """Mean risk over the coverages 1/n … n/n (AURC); examples of equal confidence come in a random order."""
        steps = np.arange(1, self.accepted[-1] + 1)
        return float(np.mean(np.interp(steps, np.append(0, self.accepted), np.append(0, self.mistakes)) / steps))


def risk_coverage(confidence: Float[np.ndarray, "examples"], right: Bool[np.ndarray, "examples"]) -> RiskCoverage:
    """The risk-coverage curve of at least one example."""
    counts = counts_by_threshold(confidence, ~right)
    return RiskCoverage(counts.thresholds, counts.true_positives + counts.false_positives, counts.true_positives)


def threshold_by_risk(
    confidence: Float[np.ndarray, "examples"], right: Bool[np.ndarray, "examples"], risk: float
) -> float | None:
    """The lowest threshold of confidence with at most this risk, which accepts the most examples; None without one."""
    curve = risk_coverage(confidence, right)
    allowed = np.flatnonzero(curve.risk <= risk)
    return _between(curve.thresholds, int(allowed[-1]) + 1) if len(allowed) else None


def threshold_by_recall(
    scores: Float[np.ndarray, "examples"], positive: Bool[np.ndarray, "examples"], least: float
) -> float | None:
    """The highest threshold with at least this recall; None without positives."""
    counts = counts_by_threshold(scores, positive)
    reached = np.flatnonzero(counts.recall >= least)
    return _between(counts.thresholds, int(reached[0])) if len(reached) else None


def threshold_by_precision(
    scores: Float[np.ndarray, "examples"], positive: Bool[np.ndarray, "examples"], least: float
) -> float | None:
    """The lowest threshold with at least this precision, which has the most recall; None if no one has it."""
    counts = counts_by_threshold(scores, positive)
    reached = np.flatnonzero((counts.precision >= least) & (counts.true_positives > 0))
    return _between(counts.thresholds, int(reached[-1]) + 1) if len(reached) else None


def threshold_by_cost(
    scores: Float[np.ndarray, "examples"], positive: Bool[np.ndarray, "examples"], cost: tuple[float, float]
) -> float:
    """The threshold of least cost on these examples, given the costs of a false positive and of a false negative.

    Where several cost the same it is the one nearest to that which is best for calibrated probabilities,
    false positive / (false positive + false negative) (Elkan 2001, section 1.1).
    """
    ideal = cost[0] / (cost[0] + cost[1])
    counts = counts_by_threshold(scores, positive)
    costs = cost[0] * np.append(0, counts.false_positives)
    costs = costs + cost[1] * (counts.positives - np.append(0, counts.true_positives))
    lowest = costs <= costs.min() * (1 + ROUNDING)
    if lowest[int(np.sum(counts.thresholds >= ideal))]:
        return ideal
    best = [_between(counts.thresholds, int(taken)) for taken in np.flatnonzero(lowest)]
    return min(best, key=lambda threshold: abs(threshold - ideal))


def _between(falling: Float64[np.ndarray, "distinct"], taken: int) -> float:
    """A threshold that accepts the first `taken` of falling probabilities and no other."""
    if taken == 0:
        return ABOVE_ALL
    if taken == len(falling):
        return 0.0
    middle = float(falling[taken - 1] + falling[taken]) / 2
    return middle if middle > falling[taken] else float(falling[taken - 1])
