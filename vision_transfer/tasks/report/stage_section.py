"""The stages on a page: their curves as charts, the best epoch, and over-fitting by a rule that the page states."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vision_transfer.tasks.report.charts import Chart, Series, line_chart
from vision_transfer.tasks.report.curves import QUANTITIES, SPLITS, StageCurves, stage_curves
from vision_transfer.tasks.report.run_files import RunFiles, get

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


@dataclass(frozen=True)
class StageSection:
    """A stage on the page.

    Attributes:
        name: of the stage.
        charts: of loss and accuracy.
        verdict: the best epoch and, if it over-fits, from which epoch on.
        overfits: whether it does.
        epochs: the lines of `metrics.jsonl`, for a table.
        best_epoch: its number, or None.
    """

    name: str
    charts: tuple[Chart, ...]
    verdict: str
    overfits: bool
    epochs: tuple[dict[str, Any], ...]
    best_epoch: int | None


@dataclass(frozen=True)
class Overfitting:
    """The epoch with the lowest validation loss, and the smoothed losses in it and in the last epoch."""

    epoch: int
    validation_best: float
    validation_last: float
    train_best: float
    train_last: float


def stage_sections(run: RunFiles) -> list[StageSection]:
    """The stages that have epochs, in order."""
    return [_section(run, curves) for curves in stage_curves(run.epochs, best_epochs(run))]


def best_epochs(run: RunFiles) -> dict[str, int]:
    """The best epoch of each stage: the recorded one, or the best so far by the metric that the stage monitors."""
    best: dict[str, int] = {}
    for name in dict.fromkeys(epoch["stage"] for epoch in run.epochs):
        own = [epoch for epoch in run.epochs if epoch["stage"] == name]
        sign = -1.0 if get(run.config, "stages", name, "monitor") == "validation_accuracy" else 1.0
        key = "validation_loss" if sign > 0 else "validation_accuracy"
        known = [epoch for epoch in own if epoch[key] is not None and math.isfinite(epoch[key])]
        if known:
            best[name] = min(known, key=lambda epoch: sign * epoch[key])["epoch"]
    for stage in get(run.result, "stages") or []:
        if isinstance(get(stage, "best_epoch"), int):
            best[str(get(stage, "name"))] = stage["best_epoch"]
    return best


def overfitting(stage: StageCurves) -> Overfitting | None:
    """The over-fitting that `RULE` finds in a stage's curves, or None."""
    train, validation = stage.curves["train_loss"].smoothed, stage.curves["validation_loss"].smoothed
    if not np.isfinite(validation).any():
        return None
    best = int(np.nanargmin(validation))
    found = Overfitting(
        int(stage.epochs[best]), *map(float, (validation[best], validation[-1], train[best], train[-1]))
    )
    # comparisons with NaN, which a loss may be, are false
    rises = found.validation_last > (1 + SMALLEST_RISE) * found.validation_best
    falls = found.train_last < found.train_best
    return found if len(validation) - 1 - best >= EPOCHS_AFTER and rises and falls else None


def _section(run: RunFiles, curves: StageCurves) -> StageSection:
    charts = (_chart(curves, quantity) for quantity in QUANTITIES)
    found = overfitting(curves)
    return StageSection(
        curves.stage,
        tuple(chart for chart in charts if chart is not None),
        _verdict(curves, found, run.finished),
        found is not None,
        tuple(epoch for epoch in run.epochs if epoch["stage"] == curves.stage),
        curves.best_epoch,
    )


def _chart(curves: StageCurves, quantity: str) -> Chart | None:
    series, parts = [], []
    epochs = curves.epochs.tolist()
    for split in SPLITS:
        curve = curves.curves[f"{split}_{quantity}"]
        ring = curves.best_epoch if split == "validation" else None
        if len(epochs) < FEWEST_EPOCHS_SMOOTHED:
            series.append(Series(split, split, epochs, curve.values.tolist(), dots=True, ring=ring))
        else:
            raw = Series(f"{split}, each epoch", f"{split} raw", epochs, curve.values.tolist(), dots=True, ring=ring)
            series += [raw, Series(f"{split}, smoothed", split, epochs, curve.smoothed.tolist())]
        known = curve.values[np.isfinite(curve.values)]
        if len(known):
            parts.append(f"{split} {quantity} goes from {known[0]:.4g} to {known[-1]:.4g}")
            if ring in epochs:
                parts[-1] += f" and is {curve.values[epochs.index(ring)]:.4g} in the best epoch, {ring}"
    title = f"{quantity.capitalize()} of stage {curves.stage}"
    label = "loss (nats)" if quantity == "loss" else "accuracy"
    return line_chart(title, f"Over {len(epochs)} epochs, {'; '.join(parts)}.", "epoch", label, series)


def _verdict(curves: StageCurves, found: Overfitting | None, finished: bool) -> str:
    if curves.best_epoch is None:
        return "There is no validation, so the best epoch is not known."
    best = f"Best epoch{'' if finished else ' so far'}: {curves.best_epoch} of {len(curves.epochs)}."
    if found is None:
        return f"{best} No over-fitting."
    return (
        f"{best} Over-fitting after about epoch {found.epoch}: the smoothed validation loss rose from "
        f"{found.validation_best:.4g} to {found.validation_last:.4g} while the training loss fell from "
        f"{found.train_best:.4g} to {found.train_last:.4g}."
    )


def overlaid_chart(quantity: str, runs: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]) -> Chart | None:
    """Validation curves of several runs in one chart, over all their epochs from the first stage on.

    Args:
        quantity: `loss` or `accuracy`.
        runs: name and epochs of each.
    """
    series = []
    for place, (name, epochs) in enumerate(runs):
        found = [epoch.get(f"validation_{quantity}") for epoch in epochs]
        values = [math.nan if value is None else float(value) for value in found]
        series.append(Series(name, f"run{place}", list(range(1, len(values) + 1)), values, dots=True))
    ends = [f"{one.name} ends at {one.ys[-1]:.4g} after {len(one.ys)} epochs" for one in series if len(one.ys)]
    label = "validation loss (nats)" if quantity == "loss" else "validation accuracy"
    return line_chart(
        f"Validation {quantity}, all stages in sequence", f"{'; '.join(ends)}.", "epoch of the run", label, series
    )
