"""Three scores of a layer's features: a logistic probe and nearest class means, both cross-validated, and LogME."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from vision_transfer.errors import UserError
from vision_transfer.metrics.classification import wilson_interval
from vision_transfer.runtime.console import Screen
from vision_transfer.tasks.check.labels import FOLDS, out_of_fold
from vision_transfer.tasks.probe.logme import logme
from vision_transfer.tasks.probe.pooled_features import Pooled


@dataclass(frozen=True)
class LayerScores:
    """What a layer's averaged features say of the classes, without any training of the network.

    Attributes:
        layer: name.
        width: number of features.
        right: whether the logistic probe, asked about images that it was not fitted on, classifies each rightly.
        nearest_mean: share of images whose nearest class mean, of other images, is that of their class.
        logme: nats per image; comparable over layers, not over data sets.
    """

    layer: str
    width: int
    right: Bool[np.ndarray, "examples"]
    nearest_mean: float
    logme: float

    @property
    def probe(self) -> float:
        """Cross-validated accuracy of the logistic probe."""
        return float(np.mean(self.right))

    @property
    def probe_interval(self) -> tuple[float, float]:
        """95 % Wilson interval of it."""
        return wilson_interval(int(np.sum(self.right)), len(self.right))


def usable(labels: Int[np.ndarray, "examples"]) -> Bool[np.ndarray, "examples"]:
    """The images of classes that have as many as there are folds.

    Raises:
        UserError: fewer than two classes have.
    """
    kept = np.bincount(labels)[labels] >= FOLDS
    if len(np.unique(labels[kept])) < 2:
        raise UserError(
            f"config.dataset: probing cross-validates over {FOLDS} folds, and fewer than two classes have {FOLDS} "
            "training images; take more of them (config.dataset.train_examples)"
        )
    return kept


def layer_scores(pooled: Pooled, labels: Int[np.ndarray, "examples"], screen: Screen) -> list[LayerScores]:
    """The scores of all layers, from the input on; all see the same folds.

    Args:
        pooled: features of the images.
        labels: each class with as many images as there are folds.
        screen: for the progress bar.
    """
    found = []
    with screen.bar("Scoring layers", len(pooled.layers), "layers") as advance:
        for layer in pooled.layers:
            found.append(_scores(layer, pooled.of(layer), labels))
            advance(1)
    return found


def nearest_class_mean(features: Float[np.ndarray, "examples features"], labels: Int[np.ndarray, "examples"]) -> float:
    """Share of images whose nearest class mean is that of their class; means and scales are those of other folds.

    Euclidean distance between standardised features (Mensink et al. 2013 for class means as classifiers).
    """
    from sklearn.model_selection import StratifiedKFold
    from sklearn.preprocessing import StandardScaler

    right, classes = 0, np.unique(labels)
    for seen, unseen in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(features, labels):
        scaler = StandardScaler().fit(features[seen])
        known, asked = (np.asarray(scaler.transform(features[rows])) for rows in (seen, unseen))
        means = np.stack([known[labels[seen] == one].mean(axis=0) for one in classes])
        # |x - m|² without |x|², which is the same for all means
        distances = np.sum(np.square(means), axis=1) - 2 * asked @ means.T
        right += int(np.sum(classes[np.argmin(distances, axis=1)] == labels[unseen]))
    return right / len(labels)


def best_layer(names: Sequence[str], values: Sequence[float]) -> str:
    """The layer with the highest score; of equals the deepest."""
    return max(zip(values, range(len(names)), names, strict=True))[2]


def _scores(layer: str, features: np.ndarray, labels: np.ndarray) -> LayerScores:
    classes = int(labels.max()) + 1
    answers = out_of_fold(features.astype(np.float64), labels, np.arange(len(labels)), classes)
    assert answers is not None and answers.asked.all(), "the caller keeps only classes with enough images"
    right = np.argmax(answers.probabilities, axis=1) == labels
    return LayerScores(
        layer, features.shape[1], right, nearest_class_mean(features, labels), logme(features, labels, classes)
    )
