"""Temperature scaling: one number that makes a network's probabilities mean what they say (Guo et al. 2017)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int

from vision_transfer.metrics.calibration import expected_calibration_error
from vision_transfer.metrics.classification import class_log_probabilities, metrics

# So that the search has an end. Heads on raw VGG features can be a hundred times too certain.
SMALLEST, LARGEST = 1e-3, 1e4


@dataclass(frozen=True)
class Fit:
    """How well probabilities fit, before and after division of the logits by the temperature.

    Attributes:
        examples: how many.
        nll: mean negative log-likelihood in nats, before and after.
        ece: expected calibration error in 15 bins, before and after.
    """

    examples: int
    nll: tuple[float, float]
    ece: tuple[float, float]


def fitted_temperature(logits: Float[np.ndarray, "examples outputs"], labels: Int[np.ndarray, "examples"]) -> float:
    """The temperature T that minimises the negative log-likelihood of `logits / T`.

    A network that makes no mistake on these examples would get T → 0, and claim to be certain. So each label counts as
    (n + 1) / (n + 2) of an example of its class and 1 / (n + 2) of one of the others, of n examples: one mistake in all
    (Platt 1999, section 2.2, for the same reason).

    Args:
        logits: of examples that the network was not trained on; one column is the logit of class 1 against class 0.
        labels: class numbers.
    """
    from scipy.optimize import minimize_scalar

    mistaken = 1 / (len(labels) + 2)
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        log_probabilities = class_log_probabilities(logits.astype(np.float64) / np.exp(log_temperature))
        own = log_probabilities[rows, labels]
        others = (log_probabilities.sum(axis=1) - own) / (log_probabilities.shape[1] - 1)
        return -float(np.mean((1 - mistaken) * own + mistaken * others))

    bounds = (np.log(SMALLEST), np.log(LARGEST))
    found: Any = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def fit_of(
    logits: Float[np.ndarray, "examples outputs"], labels: Int[np.ndarray, "examples"], temperature: float
) -> Fit:
    """How well probabilities fit without and with a temperature."""
    scaled = (logits, logits.astype(np.float64) / temperature)
    before, after = (metrics(values, labels).loss for values in scaled)
    errors = [expected_calibration_error(probabilities(values), labels) for values in scaled]
    return Fit(len(labels), (before, after), (errors[0], errors[1]))


def probabilities(
    logits: Float[np.ndarray, "examples outputs"], temperature: float = 1.0
) -> Float64[np.ndarray, "examples classes"]:
    """Probabilities of all classes from logits divided by a temperature."""
    return np.exp(class_log_probabilities(logits.astype(np.float64) / temperature))
