"""Three scores of a layer's features: a logistic probe and nearest class means, both cross-validated, and LogME."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from vision_transfer.errors import UserError
from vision_transfer.metrics.classification import wilson_interval
from vision_transfer.runtime.console import Screen
from vision_transfer.tasks.check.labels import FOLDS, out_of_fold
from vision_transfer.tasks.probe.logme import logme


@dataclass(frozen=True)
class LayerScores:
    """How well the averaged features (`width` of them) of a layer separate the classes, without training the network.

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


def usable(labels: Int[np.ndarray, "examples"]) -> Bool[np.ndarray, "examples"]:
    """Whether each image is of a class with at least as many images as folds.

    Raises:
        UserError: fewer than two classes have so many.
    """
    kept = np.bincount(labels)[labels] >= FOLDS
    if len(np.unique(labels[kept])) < 2:
        raise UserError(
            f"config.dataset: probing cross-validates over {FOLDS} folds, and fewer than two classes have {FOLDS} "
            "training images; use more of them (config.dataset.train_examples)"
        )
    return kept


def layer_scores(
    pooled: Mapping[str, Float[np.ndarray, "examples features"]], labels: Int[np.ndarray, "examples"], screen: Screen
) -> list[LayerScores]:
    """The scores of all layers, from the input on, with the same folds; no class has fewer images than folds."""
    found, classes = [], int(labels.max()) + 1
    with screen.bar("Scoring layers", len(pooled), "layers") as advance:
        for layer, features in pooled.items():
            answers = out_of_fold(features.astype(np.float64), labels, np.arange(len(labels)), classes)
            assert answers is not None and answers.asked.all(), "the caller keeps only classes with enough images"
            correct = np.argmax(answers.probabilities, axis=1) == labels
            means = nearest_class_mean(features, labels)
            found.append(LayerScores(layer, features.shape[1], correct, means, logme(features, labels, classes)))
            advance(1)
    return found


def nearest_class_mean(features: Float[np.ndarray, "examples features"], labels: Int[np.ndarray, "examples"]) -> float:
    """Share of images whose nearest class mean is that of their class; means and scales come from the other folds.

    Euclidean distance between standardised features (Mensink et al. 2013 for class means as classifiers).
    """
    from sklearn.model_selection import StratifiedKFold
    from sklearn.preprocessing import StandardScaler

    correct, classes = 0, np.unique(labels)
    for seen, unseen in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(features, labels):
        scaler = StandardScaler().fit(features[seen])
        known, asked = (np.asarray(scaler.transform(features[rows])) for rows in (seen, unseen))
        means = np.stack([known[labels[seen] == one].mean(axis=0) for one in classes])
        # |x - m|² without |x|², which is the same for all means m.
        distances = np.sum(np.square(means), axis=1) - 2 * asked @ means.T
        correct += int(np.sum(classes[np.argmin(distances, axis=1)] == labels[unseen]))
    return correct / len(labels)


def best_layer(scores: Sequence[LayerScores], value: Callable[[LayerScores], float]) -> LayerScores:
    """The layer with the highest value; of equals the deepest."""
    return max(reversed(scores), key=value)
