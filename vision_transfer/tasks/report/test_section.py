"""The test on a page: headline metrics, confusion, metrics of each class, calibration, curves of the ranking."""

import math
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from vision_transfer.metrics.calibration import BINS, expected_calibration_error, reliability
from vision_transfer.metrics.classification import class_log_probabilities, per_class, wilson_interval
from vision_transfer.metrics.decision import risk_coverage
from vision_transfer.metrics.ranking import counts_by_threshold, log_odds, ranking
from vision_transfer.predict.decision import Decision, meaning, reason, results_of
from vision_transfer.tasks.report.charts import Chart, Series, reliability_chart, share_chart
from vision_transfer.tasks.report.confusion import row_shares
from vision_transfer.tasks.report.run_files import Predictions, RunFiles, get, number

# Colours of lines that can be told apart; with more classes, those with the smallest ROC-AUC are drawn.
MOST_LINES = 6
# Points of a drawn curve; more could not be seen.
MOST_POINTS = 400
# With more classes, the most frequent confusions are listed instead of the matrix.
CLASSES_IN_MATRIX = 20
CONFUSED_PAIRS = 15
AREAS = ("roc_auc", "average_precision")
INTERVAL = "95 % interval"
CLASS_COLUMNS = ("Class", "Precision", INTERVAL, "Recall", INTERVAL, "F1", "ROC-AUC", "Average precision", "Images")
# Further metrics of `result.json` at the top of the page: name, remark.
FURTHER = {
    "roc_auc": ("ROC-AUC", "one class against the rest, mean over classes"),
    "average_precision": ("Average precision", "one class against the rest, mean over classes"),
    "kappa": ("Cohen's kappa", "agreement beyond chance"),
}


def ranking_charts(predictions: Predictions | None, classes: tuple[str, ...], positive: str | None) -> list[Chart]:
    """ROC, precision-recall and risk-coverage curves; none without predictions.

    With two classes there is one line, of `positive` or else the second class; ROC and precision-recall curves are
    computed without a temperature, as the metrics in `result.json`.
    """
    if predictions is None or not len(predictions.labels):
        return []
    labels = predictions.labels
    log_probabilities = class_log_probabilities(predictions.log_probabilities * predictions.temperature)
    areas, scores = ranking(log_probabilities, labels), log_odds(log_probabilities)
    defined = np.flatnonzero(~np.isnan(areas.roc_auc))
    lines = defined[np.argsort(areas.roc_auc[defined], kind="stable")][:MOST_LINES].tolist()
    if len(classes) == 2:
        lines = [classes.index(positive) if positive in classes else 1] if lines else []
    roc, recalls = [Series("chance", "reference", (0.0, 1.0), (0.0, 1.0))], []
    for place, label in enumerate(sorted(lines)):
        found, style = counts_by_threshold(scores[:, label], labels == label), f"run{place}"
        xs, ys = _thinned(found.false_positive_rate, found.recall)
        roc.append(Series(f"{classes[label]}, area {found.roc_auc:.4f}", style, xs, ys))
        xs, ys = _thinned(found.recall[1:], found.precision)
        name = f"{classes[label]}, average precision {found.average_precision:.4f}"
        recalls.append(Series(name, style, xs, ys, dots=len(xs) == 1))
    rest = "" if len(classes) == 2 else ", each class against the rest"
    rest += f", the {len(lines)} of smallest ROC-AUC" if len(classes) > 2 and len(lines) < len(defined) else ""
    risk = risk_coverage(predictions.confidence, predictions.right)
    xs, ys = _thinned(risk.coverage, risk.risk)
    charts = [
        share_chart(f"ROC curve{rest}", "false positive rate", "recall (true positive rate)", roc),
        share_chart(f"Precision and recall{rest}", "recall", "precision", recalls),
    ]
    risks = [Series(f"this run, area {risk.area:.4f}", "run0", xs, ys)]
    title = "Risk and coverage: abstaining below a confidence"
    return [*(charts if lines else []), share_chart(title, "coverage (share answered)", "risk (share wrong)", risks)]


def decision_sentences(decision: Decision | None) -> list[str]:
    """The decision of the run and its results on validation and test, in words."""
    if decision is None:
        return []
    said = [f"Decision: {meaning(decision)}. Chosen on validation for: {reason(decision)}."]
    for split, outcome in (("Validation", decision.validation), ("Test", decision.test)):
        if outcome is not None:
            said.append(f"{split}: {results_of(decision, outcome)} (95 % Wilson intervals).")
    return said


def _thinned(xs: Float64[np.ndarray, "points"], ys: Float64[np.ndarray, "points"]) -> tuple[list[float], list[float]]:
    """The points, or so many of them that no one could see the difference; `xs` rise.

    Of points at the same x the first and the last are enough. Of the others some are chosen by equal steps in x and
    some by their rank, since either alone passes over parts of a curve.
    """
    ends = np.diff(xs) != 0
    kept = np.flatnonzero(np.append(True, ends) | np.append(ends, True))
    if len(kept) > MOST_POINTS:
        by_rank = np.linspace(0, len(kept) - 1, MOST_POINTS // 2).round().astype(int)
        by_x = np.searchsorted(xs[kept], np.linspace(xs[0], xs[-1], MOST_POINTS // 2))
        kept = kept[np.union1d(by_rank, by_x)]
    return xs[kept].tolist(), ys[kept].tolist()


def headlines(run: RunFiles) -> dict[str, tuple[str, str]]:
    """The metrics at the top of the page that the run's files give: value and remark, by name."""
    test = get(run.result, "test")
    found = {}
    accuracy, examples = number(get(test, "accuracy")), get(test, "examples")
    if accuracy is not None:
        ends = get(test, "accuracy_ci95")
        folds = get(test, "folds")
        how = f"runs of {folds} folds, on images that they did not see" if folds else "Wilson"
        interval = f"95 % interval {ends[0]:.4f} to {ends[1]:.4f} ({how}), {examples:,} images" if ends else ""
        found["Expected accuracy" if folds else "Test accuracy"] = (f"{accuracy:.4f}", interval)
    if (loss := number(get(test, "loss"))) is not None:
        found["Test loss"] = (f"{loss:.4f}", "mean cross-entropy, nats, without a temperature")
    if (counts := confusion_counts(run)) is not None:
        balanced = per_class(counts).balanced_accuracy
        found["Balanced accuracy"] = (_metric(balanced), "mean recall of the classes")
    found |= _further(test)
    for name, value in (get(test, "own") or {}).items():
        found[name] = ("–" if number(value) is None else f"{value:.4f}", "metric of your own")
    if run.predictions is not None and len(run.predictions.labels):
        error = expected_calibration_error(run.predictions.probabilities, run.predictions.labels)
        found["Calibration error"] = (f"{error:.4f}", f"expected (ECE), {BINS} bins{_scale(run.predictions)}")
    if tested := get(run.result, "tested"):
        is_last = get(run.config, "evaluate") == "last" or get(tested, "validation", "accuracy") is None
        how = "the start" if tested["epoch"] == 0 else "last epoch" if is_last else "chosen on validation"
        found["Tested"] = (f"{tested['stage']}, epoch {tested['epoch']}", how)
    if parameters := get(run.result, "parameters"):
        total, trainable = parameters["total"], parameters["trainable"]
        found["Trainable"] = (f"{trainable:,}", f"of {total:,} parameters in the last stage")
    return found


def _further(test: Any) -> dict[str, tuple[str, str]]:
    """The metrics of `FURTHER` and the top-k accuracy, each only where it is recorded and defined."""
    values = {key: number(get(test, key)) for key in FURTHER}
    found = {FURTHER[key][0]: (f"{value:.4f}", FURTHER[key][1]) for key, value in values.items() if value is not None}
    if (top := number(get(test, "top_k", "accuracy"))) is not None:
        found[f"Top-{test['top_k']['k']} accuracy"] = (f"{top:.4f}", "the label is among the most probable classes")
    return found


def _scale(predictions: Predictions) -> str:
    """The temperature, as words for a heading; nothing where it is 1. Folds' networks are shown without theirs."""
    if predictions.is_out_of_fold:
        return ", of the networks of the folds, without a temperature"
    return f", temperature {predictions.temperature:.3f}" if predictions.temperature != 1 else ""


def confusion_counts(run: RunFiles) -> Int64[np.ndarray, "classes classes"] | None:
    """The recorded confusion matrix, or None."""
    recorded = get(run.result, "test", "confusion")
    if recorded is None:
        return None
    counts = np.asarray(recorded, np.int64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ValueError(f"a confusion matrix of shape {counts.shape}")
    return counts


def confusion_table(run: RunFiles) -> dict[str, list[Any]] | None:
    """`counts` `[label][predicted]` and `shares` of each row; with many classes only the most frequent `mistakes`.

    A mistake is its label, its prediction and the number of images.
    """
    counts = confusion_counts(run)
    if counts is None:
        return None
    if len(counts) <= CLASSES_IN_MATRIX:
        return {"counts": counts.tolist(), "shares": row_shares(counts).tolist(), "mistakes": []}
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSED_PAIRS]
    places = [divmod(int(place), len(counts)) for place in order]
    mistakes = [
        (run.classes[label], run.classes[predicted], int(wrong[label, predicted])) for label, predicted in places
    ]
    return {"counts": [], "shares": [], "mistakes": [mistake for mistake in mistakes if mistake[2]]}


def class_rows(run: RunFiles) -> list[tuple[str | int, ...]]:
    """Name, metrics and number of images of each class, as the columns of `CLASS_COLUMNS`; a dash where undefined."""
    counts = confusion_counts(run)
    if counts is None:
        return []
    found = per_class(counts)
    recorded = get(run.result, "test", "per_class") or [{}] * len(run.classes)
    return [
        (
            name,
            _metric(found.precision[place]),
            _interval(found.precision_ci95[place]),
            _metric(found.recall[place]),
            _interval(found.recall_ci95[place]),
            _metric(found.f1[place]),
            *("–" if (area := number(get(recorded[place], key))) is None else _metric(area) for key in AREAS),
            int(found.support[place]),
        )
        for place, name in enumerate(run.classes)
    ]


def calibration_section(predictions: Predictions | None) -> tuple[str, Chart] | None:
    """A verdict on the calibration of the run's probabilities in words, and its chart; None without predictions."""
    if predictions is None or not len(predictions.labels):
        return None
    error = expected_calibration_error(predictions.probabilities, predictions.labels)
    mean, accuracy = float(predictions.confidence.mean()), float(predictions.right.mean())
    low, high = wilson_interval(int(predictions.right.sum()), len(predictions.labels))
    opinion = "over-confident" if mean > high else "under-confident" if mean < low else "as confident as it is accurate"
    verdict = (
        f"Expected calibration error {error:.4f} ({BINS} bins of equal width{_scale(predictions)}). Mean confidence "
        f"{mean:.4f}, accuracy {accuracy:.4f} with a 95 % interval from {low:.4f} to {high:.4f}: on average the "
        f"{'networks of the folds are' if predictions.is_out_of_fold else 'network is'} {opinion}."
    )
    return verdict, reliability_chart(reliability(predictions.probabilities, predictions.labels), error)


def _interval(ends: tuple[float, float] | None) -> str:
    return "–" if ends is None else "{:.3f} to {:.3f}".format(*ends)


def _metric(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4f}"
