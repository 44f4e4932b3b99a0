"""Metrics from logits, in float64 on the host, with intervals; metrics of each class from a confusion matrix."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
from jaxtyping import Float, Float64, Int

from vision_transfer.metrics.ranking import Ranking, ranking


@dataclass(frozen=True)
class Metrics:
    """Mean cross-entropy in nats, the share of correctly classified examples, and metrics of the user's own by name."""

    loss: float
    accuracy: float
    own: Mapping[str, float | None] = field(default_factory=dict[str, float | None])


@dataclass(frozen=True)
class TestResult:
    """Metrics of the test split, with the 95 % Wilson interval of the accuracy and counts `[label][predicted]`.

    With `folds`, they are those of the images of so many folds, and the interval is `out_of_fold_interval`.
    """

    loss: float
    accuracy: float
    accuracy_ci95: tuple[float, float]
    examples: int
    confusion: list[list[int]]
    ranking: Ranking
    folds: int = 0


@dataclass(frozen=True)
class PerClass:
    """Metrics of each class, NaN where undefined; its number of examples, the support, and of predictions."""

    precision: Float64[np.ndarray, "classes"]
    recall: Float64[np.ndarray, "classes"]
    f1: Float64[np.ndarray, "classes"]
    support: Int[np.ndarray, "classes"]
    predicted: Int[np.ndarray, "classes"]

    @property
    def recall_ci95(self) -> list[tuple[float, float] | None]:
        """95 % Wilson intervals of the recalls; None where the recall is not defined."""
        return _intervals(self.recall, self.support)

    @property
    def precision_ci95(self) -> list[tuple[float, float] | None]:
        """95 % Wilson intervals of the precisions; None where the precision is not defined."""
        return _intervals(self.precision, self.predicted)

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that have examples (Brodersen 2010); NaN if none has."""
        present = self.support > 0
        return float(np.mean(self.recall[present])) if present.any() else float("nan")


def class_log_probabilities(logits: Float[np.ndarray, "examples outputs"]) -> Float[np.ndarray, "examples classes"]:
    """Log-probabilities of all classes; a single output is the logit of class 1 against class 0."""
    wide = logits.astype(np.float64)
    if wide.shape[1] == 1:
        wide = np.concatenate([np.zeros_like(wide), wide], axis=1)
    from scipy.special import log_softmax

    return log_softmax(wide, axis=1)


def metrics(logits: Float[np.ndarray, "examples outputs"], labels: Int[np.ndarray, "examples"]) -> Metrics:
    """Loss and accuracy over all examples."""
    log_probabilities = class_log_probabilities(logits)
    loss = -np.mean(log_probabilities[np.arange(len(labels)), labels])
    return Metrics(float(loss), float(np.mean(np.argmax(log_probabilities, axis=1) == labels)))


def evaluate_test(logits: Float[np.ndarray, "examples outputs"], labels: Int[np.ndarray, "examples"]) -> TestResult:
    """Loss, accuracy with its interval, confusion matrix, and metrics of ranking."""
    log_probabilities, found = class_log_probabilities(logits), metrics(logits, labels)
    classes = log_probabilities.shape[1]
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels, np.argmax(log_probabilities, axis=1)), 1)
    interval = wilson_interval(int(np.trace(confusion)), len(labels))
    ranked = ranking(log_probabilities, labels)
    return TestResult(found.loss, found.accuracy, interval, len(labels), confusion.tolist(), ranked)


def per_class(confusion: Int[np.ndarray, "classes classes"]) -> PerClass:
    """Precision, recall and F1 from counts `[label][predicted]`."""
    hits, support, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    f1 = ratio(2 * hits, support + predicted)
    return PerClass(ratio(hits, predicted), ratio(hits, support), f1, support, predicted)


def cohen_kappa(confusion: Int[np.ndarray, "classes classes"]) -> float:
    """Agreement beyond chance (Cohen 1960): 0 by chance, 1 if all are right; NaN where chance leaves nothing over."""
    total = confusion.sum()
    chance = float(confusion.sum(axis=1) @ confusion.sum(axis=0)) / float(total) ** 2 if total else 1.0
    return (float(np.trace(confusion)) / float(total) - chance) / (1 - chance) if chance < 1 else float("nan")


def matthews(confusion: Int[np.ndarray, "classes classes"]) -> float:
    """Correlation of labels and predictions (Gorodkin 2004); NaN where one class has all labels or predictions."""
    total, support, predicted = float(confusion.sum()), confusion.sum(axis=1), confusion.sum(axis=0)
    spread = (total**2 - float(support @ support)) * (total**2 - float(predicted @ predicted))
    covariance = float(np.trace(confusion)) * total - float(support @ predicted)
    return covariance / float(np.sqrt(spread)) if spread else float("nan")


def _intervals(
    shares: Float64[np.ndarray, "classes"], trials: Int[np.ndarray, "classes"]
) -> list[tuple[float, float] | None]:
    return [
        wilson_interval(round(float(share) * count), count) if count else None
        for share, count in zip(shares, trials.tolist(), strict=True)
    ]


def ratio(part: np.ndarray, whole: Int[np.ndarray, "entries"]) -> Float64[np.ndarray, "entries"]:
    """`part / whole`, and NaN where `whole` is 0."""
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def wilson_interval(successes: float, trials: float) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion (Wilson 1927, JASA 22:209); trials may be an effective number."""
    z = NormalDist().inv_cdf(0.975)
    share, spread = successes / trials, z * z / trials
    centre = share + spread / 2
    half_width = z * np.sqrt(share * (1 - share) / trials + spread / (4 * trials))
    low, high = (centre - half_width) / (1 + spread), (centre + half_width) / (1 + spread)
    return max(0.0, float(low)), min(1.0, float(high))
