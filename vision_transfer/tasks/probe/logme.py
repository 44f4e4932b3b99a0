"""LogME: how well a Bayesian linear model on fixed features explains the labels, without held-out images.

You, Liu, Wang and Long 2021, "LogME: Practical Assessment of Pre-trained Models for Transfer Learning" (ICML,
arXiv:2102.11005). The labels of each class (1 for its images, 0 for the others) are a linear function of the features
with weights of precision α and noise of precision β; the score is the largest log evidence over α and β, divided by
the number of images and averaged over the classes. It is in nats per image, higher is better, and does not change with
the scale of the features. No intercept and no standardisation, as in the paper.
"""

import numpy as np
from jaxtyping import Float, Int

# The iteration has converged when one step changes the evidence of each class by less, in nats per image.
TOLERANCE = 1e-9
MOST_ITERATIONS = 2000
# Residual of a perfect fit in float64; with 0 the precision of the noise would be infinite.
SMALLEST_RESIDUAL = 1e-12
# Range of the precisions, for features with a largest singular value of 1: without signal one would go to infinity.
PRECISIONS = (1e-12, 1e12)


def logme(features: Float[np.ndarray, "examples features"], labels: Int[np.ndarray, "examples"], classes: int) -> float:
    """The score of one layer's features, in nats per image; classes without images are left out."""
    present = np.intersect1d(np.arange(classes), labels)
    targets = (labels[:, None] == present).astype(np.float64)
    return float(np.mean(log_evidence(features.astype(np.float64), targets)))


def log_evidence(
    features: Float[np.ndarray, "examples features"], targets: Float[np.ndarray, "examples targets"]
) -> Float[np.ndarray, "targets"]:
    """The largest log evidence of each target (column) over both precisions, divided by the number of examples.

    This is the fixed-point iteration of the paper (after MacKay 1992) in float64. It needs only the singular values of
    the features and the targets' components along the left singular vectors.
    """
    count, width = features.shape
    left, singular, _ = np.linalg.svd(features, full_matrices=False)
    # The score does not depend on the scale of the features, so the scale can be chosen for numerical stability.
    squares = np.square(singular / (singular[0] or 1.0))[:, None]
    components = np.square(left.T @ targets)
    # The part of the targets that no linear combination of the features reaches.
    outside = np.maximum(np.sum(np.square(targets), axis=0) - np.sum(components, axis=0), 0.0)
    alpha = np.ones(targets.shape[1])
    beta = np.ones(targets.shape[1])
    evidence = np.full(targets.shape[1], -np.inf)
    for _ in range(MOST_ITERATIONS):
        scaled = alpha + beta * squares
        gamma = np.sum(beta * squares / scaled, axis=0)
        weights = np.sum(np.square(beta) * squares * components / np.square(scaled), axis=0)
        residual = np.maximum(
            outside + np.sum(np.square(alpha / scaled) * components, axis=0), SMALLEST_RESIDUAL * count
        )
        determinant = np.sum(np.log(scaled), axis=0) + (width - len(singular)) * np.log(alpha)
        found = (
            count * np.log(beta)
            + width * np.log(alpha)
            - count * np.log(2 * np.pi)
            - beta * residual
            - alpha * weights
            - determinant
        ) / (2 * count)
        if np.all(np.abs(found - evidence) < TOLERANCE):
            return found
        evidence = found
        alpha = np.clip(gamma / np.maximum(weights, np.finfo(np.float64).tiny), *PRECISIONS)
        beta = np.clip((count - gamma) / residual, *PRECISIONS)
    return evidence
