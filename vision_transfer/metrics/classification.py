"""Metrics from logits, in float64 on the host, with intervals."""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class Metrics:
    """Mean cross-entropy in nats and share of examples classified rightly."""

    loss: float
    accuracy: float


@dataclass(frozen=True)
class TestResult:
    """What the test split says.

    Attributes:
        loss: mean cross-entropy in nats.
        accuracy: share of examples classified rightly.
        accuracy_ci95: 95 % Wilson interval of it.
        examples: how many.
        confusion: `[label][predicted]` counts.
    """

    loss: float
    accuracy: float
    accuracy_ci95: tuple[float, float]
    examples: int
    confusion: list[list[int]]


def class_log_probabilities(logits: Float[np.ndarray, "examples outputs"]) -> Float[np.ndarray, "examples classes"]:
    """Log-probabilities of all classes; one output is the logit of class 1 against class 0."""
    wide = logits.astype(np.float64)
    if wide.shape[1] == 1:
        wide = np.concatenate([np.zeros_like(wide), wide], axis=1)
    from scipy.special import log_softmax

    return log_softmax(wide, axis=1)


def metrics(logits: Float[np.ndarray, "examples outputs"], labels: Int[np.ndarray, "examples"]) -> Metrics:
    """Loss and accuracy over all examples, each counted once."""
    log_probabilities = class_log_probabilities(logits)
    loss = -np.mean(log_probabilities[np.arange(len(labels)), labels])
    return Metrics(float(loss), float(np.mean(np.argmax(log_probabilities, axis=1) == labels)))


def evaluate_test(logits: Float[np.ndarray, "examples outputs"], labels: Int[np.ndarray, "examples"]) -> TestResult:
    """Loss, accuracy with its interval, and confusion matrix of the test split."""
    log_probabilities = class_log_probabilities(logits)
    predicted = np.argmax(log_probabilities, axis=1)
    summary = metrics(logits, labels)
    classes = log_probabilities.shape[1]
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    return TestResult(
        loss=summary.loss,
        accuracy=summary.accuracy,
        accuracy_ci95=wilson_interval(int(np.sum(predicted == labels)), len(labels)),
        examples=len(labels),
        confusion=confusion.tolist(),
    )


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927, JASA 22:209)."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, spread = successes / trials, z * z / trials
    centre = share + spread / 2
    half_width = z * np.sqrt(share * (1 - share) / trials + spread / (4 * trials))
    low, high = (centre - half_width) / (1 + spread), (centre + half_width) / (1 + spread)
    return max(0.0, float(low)), min(1.0, float(high))
