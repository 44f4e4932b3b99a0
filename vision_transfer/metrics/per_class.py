"""What a confusion matrix says of each class: precision, recall, F1; and accuracy as if classes were equally large."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int


@dataclass(frozen=True)
class PerClass:
    """Figures of each class; NaN where a figure is not defined.

    Attributes:
        precision: of the examples predicted to be of the class, the share that is.
        recall: of the class's examples, the share that is predicted.
        f1: harmonic mean of both.
        support: examples of the class.
    """

    precision: Float64[np.ndarray, "classes"]
    recall: Float64[np.ndarray, "classes"]
    f1: Float64[np.ndarray, "classes"]
    support: Int[np.ndarray, "classes"]

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall over the classes that have examples (Brodersen 2010); NaN if none has."""
        present = self.support > 0
        return float(np.mean(self.recall[present])) if present.any() else float("nan")


def per_class(confusion: Int[np.ndarray, "classes classes"]) -> PerClass:
    """Precision, recall and F1 from counts `[label][predicted]`."""
    counts = np.asarray(confusion)
    hits, support, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    return PerClass(
        precision=_share(hits, predicted),
        recall=_share(hits, support),
        f1=_share(2 * hits, support + predicted),
        support=support,
    )


def _share(part: Int[np.ndarray, "classes"], whole: Int[np.ndarray, "classes"]) -> Float64[np.ndarray, "classes"]:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
