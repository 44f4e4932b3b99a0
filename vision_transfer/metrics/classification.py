"""Metrics from logits, in float64 on the host, with intervals; metrics of each class from a confusion matrix."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
from jaxtyping import Float, Float64, Int


@dataclass(frozen=True)
class Metrics:
    """Mean cross-entropy in nats, the share of correctly classified examples, and metrics of the user's own by name."""

    loss: float
    accuracy: float
    own: Mapping[str, float | None] = field(default_factory=dict[str, float | None])


@dataclass(frozen=True)
class TestResult:
    """Metrics of the test split, with the 95 % Wilson interval of the accuracy and counts `[label][predicted]`."""

    loss: float
    accuracy: float
    accuracy_ci95: tuple[float, float]
    examples: int
    confusion: list[list[int]]


@dataclass(frozen=True)
class PerClass:
    """Metrics of each class, NaN where undefined, and its number of examples, the support."""

    precision: Float64[np.ndarray, "classes"]
    recall: Float64[np.ndarray, "classes"]
    f1: Float64[np.ndarray, "classes"]
    support: Int[np.ndarray, "classes"]

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
    """Loss, accuracy with its interval, and confusion matrix."""
    log_probabilities, found = class_log_probabilities(logits), metrics(logits, labels)
    classes = log_probabilities.shape[1]
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels, np.argmax(log_probabilities, axis=1)), 1)
    interval = wilson_interval(int(np.trace(confusion)), len(labels))
    return TestResult(found.loss, found.accuracy, interval, len(labels), confusion.tolist())


def per_class(confusion: Int[np.ndarray, "classes classes"]) -> PerClass:
    """Precision, recall and F1 from counts `[label][predicted]`."""
    hits, support, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    return PerClass(ratio(hits, predicted), ratio(hits, support), ratio(2 * hits, support + predicted), support)


def ratio(part: np.ndarray, whole: Int[np.ndarray, "entries"]) -> Float64[np.ndarray, "entries"]:
    """`part / whole`, and NaN where `whole` is 0."""
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927, JASA 22:209)."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, spread = successes / trials, z * z / trials
    centre = share + spread / 2
    half_width = z * np.sqrt(share * (1 - share) / trials + spread / (4 * trials))
    low, high = (centre - half_width) / (1 + spread), (centre + half_width) / (1 + spread)
    return max(0.0, float(low)), min(1.0, float(high))
