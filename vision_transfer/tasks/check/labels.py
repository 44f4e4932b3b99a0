"""Labels that may be wrong, and pictures unlike all others, by the features of a network trained elsewhere.

A logistic regression on the features is trained on four fifths of the pictures and asked about the fifth that it has
not seen. A label is suspect where it is confidently contradicted: another class is at least as likely as it is on
average for the pictures that bear its label (confident learning: Northcutt et al. 2021, arXiv:1911.00068, equation 1).
A picture is unlike all others where its nearest neighbours are far beyond what is usual (Tukey's outer fence: the
third quartile and three times the interquartile range; Tukey 1977, "Exploratory Data Analysis").
"""

import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

FOLDS = 5
# Strengths of the regularisation that are tried (scikit-learn's C); the one with the smallest held-out loss is taken.
STRENGTHS = (0.001, 0.01, 0.1, 1.0)
NEIGHBOURS = 5
FENCE = 3.0
_MOST_ITERATIONS = 1000
# Rows of the table of distances at a time.
_ROWS = 1024


@dataclass(frozen=True)
class OutOfFold:
    """What a classifier says of pictures that it was not trained on.

    Attributes:
        probabilities: of all classes; NaN where the picture was left out.
        asked: pictures that it was asked about: those of classes with at least `FOLDS` pictures.
        accuracy: share of these whose label it found likeliest.
    """

    probabilities: Float[np.ndarray, "examples classes"]
    asked: Bool[np.ndarray, "examples"]
    accuracy: float


def out_of_fold(
    features: Float[np.ndarray, "examples features"],
    labels: Int[np.ndarray, "examples"],
    groups: Int[np.ndarray, "examples"],
    classes: int,
) -> OutOfFold | None:
    """Probabilities of each picture's classes by classifiers that have not seen it, nor any other of its group.

    None where fewer than two classes have as many pictures as there are folds.
    """
    asked = np.bincount(labels, minlength=classes)[labels] >= FOLDS
    if len(np.unique(labels[asked])) < 2:
        return None
    best: np.ndarray | None = None
    least = np.inf
    for strength in STRENGTHS:
        found = _cross_validated(features[asked], labels[asked], groups[asked], classes, strength)
        own = found[np.arange(len(found)), labels[asked]]
        loss = float(-np.mean(np.log(np.maximum(own, np.finfo(np.float64).tiny))))
        if loss < least:
            best, least = found, loss
    probabilities = np.full((len(labels), classes), np.nan)
    probabilities[asked] = best
    right = np.argmax(probabilities[asked], axis=1) == labels[asked]
    return OutOfFold(probabilities, asked, float(np.mean(right)))


def suspects(found: OutOfFold, labels: Int[np.ndarray, "examples"]) -> list[tuple[int, int, float]]:
    """Pictures whose label is confidently contradicted: place, the likelier class, and by how much it is likelier."""
    probabilities, asked = found.probabilities, np.flatnonzero(found.asked)
    classes = probabilities.shape[1]
    own = probabilities[asked, labels[asked]]
    sizes = np.bincount(labels[asked], minlength=classes)
    totals = np.bincount(labels[asked], weights=own, minlength=classes)
    usual = np.divide(totals, sizes, out=np.full(classes, np.inf), where=sizes > 0)
    confident = np.where(probabilities[asked] >= usual, probabilities[asked], -np.inf)
    likelier = np.argmax(confident, axis=1)
    there_is_one = np.isfinite(confident[np.arange(len(asked)), likelier])
    contradicted = there_is_one & (likelier != labels[asked])
    margins = probabilities[asked, likelier] - own
    return [
        (int(asked[row]), int(likelier[row]), float(margins[row]))
        for row in np.flatnonzero(contradicted & (margins > 0))
    ]


def outliers(features: Float[np.ndarray, "examples features"]) -> list[tuple[int, float]]:
    """Pictures far from all others: place, and distance to the nearest ones in units of the usual one."""
    if len(features) <= NEIGHBOURS:
        return []
    distances = _neighbour_distances(features)
    lower, median, upper = np.percentile(distances, [25, 50, 75])
    fence = upper + FENCE * (upper - lower)
    return [(int(place), float(distances[place] / median)) for place in np.flatnonzero(distances > max(fence, 0))]


def _cross_validated(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray, classes: int, strength: float
) -> Float[np.ndarray, "examples classes"]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probabilities = np.zeros((len(labels), classes))
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    for seen, unseen in folds.split(features, labels, groups):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=_MOST_ITERATIONS))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(features[seen], labels[seen])
        probabilities[np.ix_(unseen, model.classes_)] = model.predict_proba(features[unseen])
    return probabilities


def _neighbour_distances(features: np.ndarray) -> Float[np.ndarray, "examples"]:
    """Mean cosine distance to the nearest neighbours."""
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    unit = np.divide(features, norms, out=np.zeros_like(features), where=norms > 0)
    distances = np.empty(len(unit))
    for first in range(0, len(unit), _ROWS):
        alike = unit[first : first + _ROWS] @ unit.T
        rows = np.arange(len(alike))
        alike[rows, first + rows] = -np.inf
        nearest = np.partition(alike, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS:]
        distances[first : first + _ROWS] = 1 - nearest.mean(axis=1)
    return distances
