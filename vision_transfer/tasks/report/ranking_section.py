"""ROC and precision-recall curves of the test on a page, and the risk at each coverage."""

import numpy as np
from jaxtyping import Float64

from vision_transfer.metrics.classification import class_log_probabilities
from vision_transfer.metrics.decision import risk_coverage
from vision_transfer.metrics.ranking import counts_by_threshold, log_odds, ranking
from vision_transfer.predict.decision import Decision, meaning, reason, results_of
from vision_transfer.tasks.report.charts import Chart, Series, share_chart
from vision_transfer.tasks.report.run_files import Predictions

# Colours of lines that can be told apart; with more classes, those with the smallest area are drawn.
MOST_LINES = 6
# Points of a drawn curve; more could not be seen.
MOST_POINTS = 400


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
    rest += f", the {len(lines)} of smallest area" if len(classes) > 2 and len(lines) < len(defined) else ""
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
    """The points, or so many of them that no one could see the difference."""
    chosen = np.unique(np.linspace(0, len(xs) - 1, min(len(xs), MOST_POINTS)).round().astype(int))
    return xs[chosen].tolist(), ys[chosen].tolist()
