"""What the test says, for a page: headline figures, confusion, each class, and which pictures are worth a look."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64

from vision_transfer.metrics.calibration import BINS, expected_calibration_error, reliability
from vision_transfer.metrics.classification import per_class, wilson_interval
from vision_transfer.tasks.report.charts import Chart
from vision_transfer.tasks.report.record import Predictions, RunRecord, get, number
from vision_transfer.tasks.report.reliability_diagram import reliability_chart

# Up to as many classes the whole matrix is shown; beyond, the pairs that are confused most.
CLASSES_IN_MATRIX = 20
CONFUSED_PAIRS = 15
# Pictures of each kind.
PICTURES = 12
# Beyond this, four places would round to 1.
CERTAIN = 0.9999


@dataclass(frozen=True)
class Headline:
    """A figure of the first screen: what it is, its value, and a remark."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class ClassRow:
    """A class's figures, as text; a dash where one is not defined."""

    name: str
    precision: str
    recall: str
    f1: str
    support: int


@dataclass(frozen=True)
class Confusion:
    """Counts `[label][predicted]`, and the same as shares of the label's images; or the most confused pairs.

    Attributes:
        counts: of a matrix that is small enough, else empty.
        shares: the same.
        pairs: label, predicted class and count of the most frequent mistakes, where the matrix is too large.
    """

    counts: list[list[int]]
    shares: list[list[float]]
    pairs: list[tuple[str, str, int]]


@dataclass(frozen=True)
class Calibration:
    """Chart, expected calibration error, and both in words."""

    chart: Chart
    error: float
    verdict: str


def headlines(record: RunRecord) -> list[Headline]:
    """The figures of the first screen that the folder gives."""
    test = get(record.result, "test")
    found = []
    accuracy, examples = number(get(test, "accuracy")), get(test, "examples")
    if accuracy is not None:
        ends = get(test, "accuracy_ci95")
        interval = f"95 % interval {ends[0]:.4f} to {ends[1]:.4f} (Wilson), {examples:,} images" if ends else ""
        found.append(Headline("Test accuracy", f"{accuracy:.4f}", interval))
    if (loss := number(get(test, "loss"))) is not None:
        found.append(Headline("Test loss", f"{loss:.4f}", "mean cross-entropy, nats"))
    if (matrix := confusion_counts(record)) is not None:
        balanced = per_class(matrix).balanced_accuracy
        found.append(Headline("Balanced accuracy", _share(balanced), "mean recall of the classes"))
    if record.predictions is not None and len(record.predictions.labels):
        error = expected_calibration_error(record.predictions.probabilities, record.predictions.labels)
        found.append(Headline("Calibration error", f"{error:.4f}", f"expected (ECE), {BINS} bins"))
    if tested := get(record.result, "tested"):
        how = "last epoch" if get(record.config, "evaluate") == "last" else "chosen on validation"
        found.append(Headline("Tested", f"{tested['stage']}, epoch {tested['epoch']}", how))
    parameters = get(record.result, "parameters")
    if parameters:
        total, trainable = parameters["total"], parameters["trainable"]
        found.append(Headline("Trainable", f"{trainable:,}", f"of {total:,} parameters in the last stage"))
    return found


def confusion_counts(record: RunRecord) -> Int64[np.ndarray, "classes classes"] | None:
    """The recorded confusion matrix, or None."""
    recorded = get(record.result, "test", "confusion")
    if recorded is None:
        return None
    counts = np.asarray(recorded, np.int64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ValueError(f"a confusion matrix of shape {counts.shape}")
    return counts


def confusion_facts(record: RunRecord) -> Confusion | None:
    """The confusion matrix, or its largest mistakes."""
    counts = confusion_counts(record)
    if counts is None:
        return None
    if len(counts) <= CLASSES_IN_MATRIX:
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        return Confusion(counts.tolist(), shares.tolist(), [])
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSED_PAIRS]
    places = [divmod(int(place), len(counts)) for place in order]
    names = record.classes
    pairs = [(names[label], names[predicted], int(wrong[label, predicted])) for label, predicted in places]
    return Confusion([], [], [pair for pair in pairs if pair[2]])


def class_rows(record: RunRecord) -> list[ClassRow]:
    """Precision, recall and F1 of each class."""
    counts = confusion_counts(record)
    if counts is None:
        return []
    found = per_class(counts)
    figures = zip(record.classes, found.precision, found.recall, found.f1, found.support, strict=True)
    return [
        ClassRow(name, _share(one), _share(two), _share(both), int(images)) for name, one, two, both, images in figures
    ]


def calibration_facts(predictions: Predictions | None) -> Calibration | None:
    """Whether the run's confidence can be believed."""
    if predictions is None or not len(predictions.labels):
        return None
    error = expected_calibration_error(predictions.probabilities, predictions.labels)
    mean, accuracy = float(predictions.confidence.mean()), float(predictions.right.mean())
    low, high = wilson_interval(int(predictions.right.sum()), len(predictions.labels))
    opinion = "over-confident" if mean > high else "under-confident" if mean < low else "about as sure as it is right"
    verdict = (
        f"Expected calibration error {error:.4f} ({BINS} bins of equal width). Mean confidence {mean:.4f}, accuracy "
        f"{accuracy:.4f} with a 95 % interval from {low:.4f} to {high:.4f}: on average the network is {opinion}."
    )
    bins = reliability(predictions.probabilities, predictions.labels)
    return Calibration(reliability_chart(bins, error), error, verdict)


def probability_text(probability: float) -> str:
    """Four places, and no certainty that rounding made."""
    return "more than 0.9999" if probability > CERTAIN else f"{probability:.4f}"


def sure_mistakes(predictions: Predictions) -> Int64[np.ndarray, "chosen"]:
    """Rows of the mistakes that the network was surest of, the surest first."""
    return _chosen(predictions, ~predictions.right, -predictions.margin)


def unsure_hits(predictions: Predictions) -> Int64[np.ndarray, "chosen"]:
    """Rows of what was classified rightly with the least confidence, the least first."""
    return _chosen(predictions, predictions.right, predictions.margin)


def _chosen(predictions: Predictions, among: np.ndarray, order: np.ndarray) -> Int64[np.ndarray, "chosen"]:
    # names decide between equals, so that the choice does not depend on the order of the rows
    rows = np.lexsort((np.array(predictions.files), order))
    return rows[among[rows]][:PICTURES]


def _share(value: Any) -> str:
    return "–" if math.isnan(value) else f"{value:.4f}"
