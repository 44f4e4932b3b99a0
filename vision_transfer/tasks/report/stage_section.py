"""The stages on a page: their curves as charts, the best epoch, and over-fitting by a rule that the page states."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vision_transfer.metrics.classification import Metrics
from vision_transfer.tasks.report.charts import Chart, Series, line_chart
from vision_transfer.tasks.report.curves import QUANTITIES, SPLITS, StageCurves, stage_curves
from vision_transfer.tasks.report.run_files import RunFiles, get
from vision_transfer.training.validation import monitored

# With fewer epochs, smoothed curves would show nothing that the points do not.
FEWEST_EPOCHS_SMOOTHED = 5
# Least number of epochs after the one with the lowest validation loss.
EPOCHS_AFTER = 3
# Rises below this share of the lowest loss are within the usual differences between epochs.
SMALLEST_RISE = 0.1

RULE = (
    f"A stage over-fits if its smoothed validation loss ends more than {100 * SMALLEST_RISE:.0f} % above its lowest "
    f"value, at least {EPOCHS_AFTER} epochs after it, while its smoothed training loss fell. Single epochs, which vary "
    "by chance, do not decide."
)


def stage_sections(run: RunFiles) -> list[dict[str, Any]]:
    """The stages that have epochs, in order, with `epochs` as lines of `metrics.jsonl` for a table."""
    return [
        {
            "name": curves.stage,
            "charts": [chart for quantity in QUANTITIES if (chart := _chart(curves, quantity)) is not None],
            "verdict": _verdict(curves, run.finished),
            "overfits": overfits_from(curves) is not None,
            "epochs": [epoch for epoch in run.epochs if epoch["stage"] == curves.stage],
            "best_epoch": curves.best_epoch,
        }
        for curves in stage_curves(run.epochs, best_epochs(run))
    ]


def best_epochs(run: RunFiles) -> dict[str, int]:
    """The best epoch of each stage: the recorded one, or the best so far by the metric that the stage monitors."""
    best: dict[str, int] = {}
    for name in dict.fromkeys(epoch["stage"] for epoch in run.epochs):
        own = [epoch for epoch in run.epochs if epoch["stage"] == name]
        monitor = str(get(run.config, "stages", name, "monitor"))
        values: dict[int, list[float]] = {}
        for epoch in own:
            loss, accuracy = epoch["validation_loss"], epoch["validation_accuracy"]
            if loss is not None and accuracy is not None:
                value = monitored(monitor, Metrics(loss, accuracy)) or []
                if all(map(math.isfinite, value)):
                    values[epoch["epoch"]] = value
        if values:
            best[name] = min(values, key=values.__getitem__)
    validated = {epoch["stage"] for epoch in run.epochs if epoch["validation_accuracy"] is not None}
    for stage in get(run.result, "stages") or []:
        name, number = str(get(stage, "name")), get(stage, "best_epoch")
        # Without validation the last epoch is recorded, and 0 where no loss was finite.
        if name in validated and isinstance(number, int) and number > 0:
            best[name] = number
    return best


def overfits_from(stage: StageCurves) -> int | None:
    """The place of the epoch with the lowest smoothed validation loss if the stage over-fits by `RULE`, or None."""
    train, validation = stage.smoothed("train_loss"), stage.smoothed("validation_loss")
    if not np.isfinite(validation).any():
        return None
    best = int(np.nanargmin(validation))
    # comparisons with NaN, which a loss may be, are false
    rises = validation[-1] > (1 + SMALLEST_RISE) * validation[best]
    falls = train[-1] < train[best]
    return best if len(validation) - 1 - best >= EPOCHS_AFTER and rises and falls else None


def _chart(curves: StageCurves, quantity: str) -> Chart | None:
    series, parts = [], []
    epochs = curves.epochs.tolist()
    for split in SPLITS:
        values, smoothed = curves.values[f"{split}_{quantity}"], curves.smoothed(f"{split}_{quantity}")
        ring = curves.best_epoch if split == "validation" else None
        if len(epochs) < FEWEST_EPOCHS_SMOOTHED:
            series.append(Series(split, split, epochs, values.tolist(), dots=True, ring=ring))
        else:
            raw = Series(f"{split}, each epoch", f"{split} raw", epochs, values.tolist(), dots=True, ring=ring)
            series += [raw, Series(f"{split}, smoothed", split, epochs, smoothed.tolist())]
        known = values[np.isfinite(values)]
        if len(known):
            parts.append(f"{split} {quantity} goes from {known[0]:.4g} to {known[-1]:.4g}")
            if ring in epochs:
                parts[-1] += f" and is {values[epochs.index(ring)]:.4g} in the best epoch, {ring}"
    title = f"{quantity.capitalize()} of stage {curves.stage}"
    is_loss = quantity == "loss"
    label, description = "loss (nats)" if is_loss else "accuracy", f"Over {len(epochs)} epochs, {'; '.join(parts)}."
    return line_chart(title, description, "epoch", label, series, is_loss=is_loss)


def _verdict(curves: StageCurves, finished: bool) -> str:
    if curves.best_epoch is None:
        if np.isfinite(curves.values["validation_accuracy"]).any():
            return "The validation loss of no epoch is finite, so none is the best."
        return "There is no validation, so the best epoch is not known."
    best = f"Best epoch{'' if finished else ' so far'}: {curves.best_epoch} of {len(curves.epochs)}."
    place = overfits_from(curves)
    if place is None:
        return f"{best} No over-fitting."
    train, validation = curves.smoothed("train_loss"), curves.smoothed("validation_loss")
    return (
        f"{best} Over-fitting after about epoch {curves.epochs[place]}: the smoothed validation loss rose from "
        f"{validation[place]:.4g} to {validation[-1]:.4g} while the training loss fell from {train[place]:.4g} to "
        f"{train[-1]:.4g}."
    )


def overlaid_charts(runs: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]) -> list[Chart]:
    """Validation loss and accuracy of several runs (name and epochs), over all epochs from the first stage on."""
    charts = []
    for quantity in QUANTITIES:
        series = []
        for place, (name, epochs) in enumerate(runs):
            values = np.array([epoch.get(f"validation_{quantity}") for epoch in epochs], np.float64).tolist()
            series.append(Series(name, f"run{place}", range(1, len(values) + 1), values, dots=True))
        ends = [
            f"{one.name} ends at {one.ys[-1]:.4g} after {len(one.ys)} epochs"
            for one in series
            if len(one.ys) and math.isfinite(one.ys[-1])
        ]
        title = f"Validation {quantity}, all stages in sequence"
        is_loss = quantity == "loss"
        label = "validation loss (nats)" if is_loss else "validation accuracy"
        charts.append(line_chart(title, f"{'; '.join(ends)}.", "epoch of the run", label, series, is_loss=is_loss))
    return [chart for chart in charts if chart is not None]
