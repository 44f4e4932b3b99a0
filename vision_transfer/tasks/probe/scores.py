"""Three scores of a layer's features: a logistic probe and nearest class means, both cross-validated, and LogME.

LogME says how well a Bayesian linear model on fixed features explains the labels, without held-out images (You, Liu,
Wang and Long 2021, "LogME: Practical Assessment of Pre-trained Models for Transfer Learning", ICML, arXiv:2102.11005).
The labels of each class (1 for its images, 0 for the others) are a linear function of the features with weights of
precision α and noise of precision β; the score is the largest log evidence over α and β, divided by the number of
images and averaged over the classes. It is in nats per image, higher is better, and does not change with the scale of
the features. No intercept and no standardisation, as in the paper.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from vision_transfer.errors import UserError
from vision_transfer.metrics.classification import wilson_interval
from vision_transfer.runtime.console import Screen
from vision_transfer.tasks.check.labels import FOLDS, group_folds, out_of_fold
from vision_transfer.tasks.classic_classifier.fit import mean_and_scale

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


@dataclass(frozen=True)
class LayerScores:
    """Scores of how well a layer's averaged features (`width` of them) separate the classes, without training.

    Attributes:
        correct: whether a logistic probe that was fitted on other images classifies each image correctly.
        nearest_mean: share of images whose nearest class mean, computed from other images, is that of their class.
        logme: nats per image; comparable between layers, not between data sets.
    """

    layer: str
    width: int
    correct: Bool[np.ndarray, "examples"]
    nearest_mean: float
    logme: float

    @property
    def probe(self) -> float:
        """Cross-validated accuracy of the logistic probe."""
        return float(np.mean(self.correct))

    @property
    def probe_interval(self) -> tuple[float, float]:
        """95 % Wilson interval of `probe`."""
        return wilson_interval(int(np.sum(self.correct)), len(self.correct))


def usable(labels: Int[np.ndarray, "examples"], groups: Int[np.ndarray, "examples"]) -> Bool[np.ndarray, "examples"]:
    """Whether each image is of a class with at least as many groups of images as folds.

    Raises:
        UserError: fewer than two classes have so many.
    """
    available = np.array([len(np.unique(groups[labels == label])) for label in range(labels.max(initial=0) + 1)])
    kept = available[labels] >= FOLDS
    if len(np.unique(labels[kept])) < 2:
        what = "groups of training images that stay together" if len(np.unique(groups)) < len(groups) else "images"
        raise UserError(
            f"config.dataset: probing cross-validates over {FOLDS} folds, and fewer than two classes have {FOLDS} "
            f"{what}; use more training images (config.dataset.train_examples)"
        )
    return kept


def layer_scores(
    pooled: Mapping[str, Float[np.ndarray, "examples features"]],
    labels: Int[np.ndarray, "examples"],
    groups: Int[np.ndarray, "examples"],
    screen: Screen,
) -> list[LayerScores]:
    """The scores of all layers, from the input on, with the same folds, which divide no group.

    No class has fewer groups than folds.
    """
    found, classes = [], int(labels.max()) + 1
    with screen.bar("Scoring layers", len(pooled), "layers") as advance:
        for layer, features in pooled.items():
            wide = features.astype(np.float64)
            answers = out_of_fold(wide, labels, groups, classes)
            assert answers is not None, "the caller keeps only classes with enough images"
            correct = answers.asked & (np.argmax(answers.probabilities, axis=1) == labels)
            means = nearest_class_mean(wide, labels, groups)
            found.append(LayerScores(layer, features.shape[1], correct, means, logme(wide, labels, classes)))
            advance(1)
    return found


def nearest_class_mean(
    features: Float[np.ndarray, "examples features"],
    labels: Int[np.ndarray, "examples"],
    groups: Int[np.ndarray, "examples"],
) -> float:
    """Share of images whose nearest class mean is that of their class; means and scales come from the other folds.

    Euclidean distance between standardised features (Mensink et al. 2013 for class means as classifiers).
    """
    from sklearn.neighbors import NearestCentroid

    right = np.zeros(len(labels), bool)
    with warnings.catch_warnings():
        # A feature that is constant within each class matters only for shrunken means.
        warnings.filterwarnings("ignore", "self.within_class_std_dev_ has at least 1 zero", UserWarning)
        for taught, held_out in group_folds().split(features, labels, groups):
            mean, scale = mean_and_scale(features[taught])
            model = NearestCentroid().fit((features[taught] - mean) / scale, labels[taught])
            right[held_out] = model.predict((features[held_out] - mean) / scale) == labels[held_out]
    return float(np.mean(right))


def best_layer(scores: Sequence[LayerScores], value: Callable[[LayerScores], float]) -> LayerScores:
    """The layer with the highest value; of equals the deepest."""
    return max(reversed(scores), key=value)
