"""Suspect labels, and images unlike all others, found on the features of a network trained on other data.

A logistic regression on the features is trained on four fifths of the images and predicts the other fifth. A label is
suspect if it is confidently contradicted: another class is more likely, and at least as likely as that class is on
average for the images labelled with it (confident learning: Northcutt et al. 2021, arXiv:1911.00068, equation 1); and
if, in a set of many images, its nearest neighbours contradict it too, which removes most images that are merely hard
for the classifier.
An image is an outlier if it lies much further from its neighbours than they lie from theirs (local outlier factor:
Breunig et al. 2000, "LOF: Identifying Density-Based Local Outliers"). So a small group of its own kind, such as photos
in another light, is not reported.
"""

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int

from vision_transfer.tasks.classic_classifier.fit import mean_and_scale

if TYPE_CHECKING:
    from sklearn.model_selection import StratifiedGroupKFold

FOLDS = 5
# Candidates for scikit-learn's C, the inverse strength of the regularisation; the smallest held-out loss decides.
STRENGTHS = (0.001, 0.01, 0.1, 1.0)
# An image's nearest neighbours contradict its label if no more of them than this share it.
VOTERS, MOST_VOTES = 10, 1
# Among fewer images neighbours are too far away to testify: of 80 photos, wrong labels shared 2 to 4 of 10 neighbours;
# of 2,062 and of 4,000, most shared at most one.
FEWEST_WITH_VOTES = 1000
NEIGHBOURS = 20
# Among 2,062 photos of hands the largest factor was 2.12; photos of pets planted among them had 2.8 to 3.8.
LEAST_FACTOR = 2.5
_MOST_ITERATIONS = 1000


@dataclass(frozen=True)
class HeldOutProbabilities:
    """Predictions for images by classifiers that were not trained on them; `accuracy` is the share that they get right.

    Only images of classes with at least `FOLDS` images were `asked`, where other groups have images of their class to
    learn from; the others' probabilities are NaN.
    """

    probabilities: Float[np.ndarray, "examples classes"]
    asked: Bool[np.ndarray, "examples"]
    accuracy: float


def out_of_fold(
    features: Float[np.ndarray, "examples features"],
    labels: Int[np.ndarray, "examples"],
    groups: Int[np.ndarray, "examples"],
    classes: int,
) -> HeldOutProbabilities | None:
    """Class probabilities of each image by classifiers trained without it and all others of its group.

    None if fewer than two classes have at least `FOLDS` images, if there are fewer groups than `FOLDS`, if the
    images outside of some fold are all of one class, or if each class is in one fold.
    """
    asked = np.flatnonzero(np.bincount(labels, minlength=classes)[labels] >= FOLDS)
    features, answers, groups = features[asked].astype(np.float64), labels[asked], groups[asked]
    if len(np.unique(answers)) < 2 or len(np.unique(groups)) < FOLDS:
        return None
    folds = list(group_folds().split(features, answers, groups))
    if any(len(np.unique(answers[taught])) < 2 for taught, _ in folds):
        return None
    # a classifier that saw no image of a class cannot contradict its label
    known = np.ones(len(answers), bool)
    for taught, held_out in folds:
        known[held_out] = np.isin(answers[held_out], answers[taught])
    if not known.any():
        return None
    best: np.ndarray | None = None
    least = np.inf
    for strength in STRENGTHS:
        found = _cross_validated(features, answers, folds, classes, strength)
        own = found[np.arange(len(found)), answers][known]
        loss = -np.mean(np.log(np.maximum(own, np.finfo(np.float64).tiny)))
        if loss < least:
            best, least = found, loss
    assert best is not None, "the loss is finite"
    probabilities = np.full((len(labels), classes), np.nan)
    probabilities[asked[known]] = best[known]
    right = np.argmax(best[known], axis=1) == answers[known]
    return HeldOutProbabilities(probabilities, ~np.isnan(probabilities[:, 0]), float(np.mean(right)))


def group_folds() -> "StratifiedGroupKFold":
    """The folds, always the same ones for the same labels and groups; none divides a group."""
    from sklearn.model_selection import StratifiedGroupKFold

    return StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)


def suspects(found: HeldOutProbabilities, labels: Int[np.ndarray, "examples"]) -> list[tuple[int, int, float]]:
    """Place, more likely class and difference in probability of each image whose label is confidently contradicted."""
    probabilities, asked = found.probabilities, np.flatnonzero(found.asked)
    classes = probabilities.shape[1]
    own = probabilities[asked, labels[asked]]
    sizes = np.bincount(labels[asked], minlength=classes)
    totals = np.bincount(labels[asked], weights=own, minlength=classes)
    usual = np.divide(totals, sizes, out=np.full(classes, np.inf), where=sizes > 0)
    confident = np.where(probabilities[asked] >= usual, probabilities[asked], -np.inf)
    likelier = np.argmax(confident, axis=1)
    margins = confident[np.arange(len(asked)), likelier] - own
    rows = np.flatnonzero((likelier != labels[asked]) & (margins > 0))
    return list(zip(asked[rows].tolist(), likelier[rows].tolist(), margins[rows].tolist(), strict=True))


def outvoted(
    features: Float[np.ndarray, "examples features"], labels: Int[np.ndarray, "examples"]
) -> Bool[np.ndarray, "examples"]:
    """Whether hardly any of the nearest neighbours of each image, by the cosine distance, have its label."""
    from sklearn.neighbors import NearestNeighbors

    voters = min(VOTERS, len(features) - 1)
    nearest = NearestNeighbors(n_neighbors=voters, metric="cosine").fit(features).kneighbors(return_distance=False)
    return (labels[nearest] == labels[:, None]).sum(axis=1) <= MOST_VOTES


def outliers(
    features: Float[np.ndarray, "examples features"], groups: Int[np.ndarray, "examples"]
) -> list[tuple[int, float]]:
    """Place and local outlier factor of each image that is unlike all others, by the cosine distance.

    Only the first image of each group of near-duplicates takes part: more copies than neighbours are so close together
    that ordinary images beside them would seem to lie far away.
    """
    from sklearn.neighbors import LocalOutlierFactor

    places = np.unique(groups, return_index=True)[1]
    if len(places) <= NEIGHBOURS:
        return []
    model = LocalOutlierFactor(NEIGHBOURS, metric="cosine")
    model.fit(features[places])
    factors = -model.negative_outlier_factor_
    return [(int(places[row]), float(factors[row])) for row in np.flatnonzero(factors > LEAST_FACTOR)]


def _cross_validated(
    features: np.ndarray,
    labels: np.ndarray,
    folds: list[tuple[np.ndarray, np.ndarray]],
    classes: int,
    strength: float,
) -> Float[np.ndarray, "examples classes"]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    # a class that a fold lacks keeps probability 0 there
    probabilities = np.zeros((len(labels), classes))
    # as in classic classifiers, more threads are slower
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for taught, held_out in folds:
            mean, scale = mean_and_scale(features[taught])
            model = LogisticRegression(C=strength, max_iter=_MOST_ITERATIONS)
            model.fit((features[taught] - mean) / scale, labels[taught])
            probabilities[np.ix_(held_out, model.classes_)] = model.predict_proba((features[held_out] - mean) / scale)
    return probabilities
