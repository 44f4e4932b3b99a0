"""The curves of each stage as charts, with what they say in words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vision_transfer.tasks.report.charts import Chart, Series, line_chart
from vision_transfer.tasks.report.curves import QUANTITIES, SPLITS, StageCurves, stage_curves
from vision_transfer.tasks.report.record import RunRecord, get
from vision_transfer.tasks.report.stage_section import overfitting

# A smoothed curve says something that the points do not, from about as many epochs on.
FEWEST_EPOCHS_SMOOTHED = 5


@dataclass(frozen=True)
class StageFacts:
    """What a stage's epochs show.

    Attributes:
        name: of the stage.
        charts: of loss and accuracy.
        verdict: the best epoch, and over-fitting where it is there.
        overfits: whether it does.
        epochs: the records, for a table.
        best_epoch: its number, or None.
    """

    name: str
    charts: tuple[Chart, ...]
    verdict: str
    overfits: bool
    epochs: tuple[dict[str, Any], ...]
    best_epoch: int | None


def stage_facts(record: RunRecord) -> list[StageFacts]:
    """The stages that have begun, in order."""
    return [_facts(record, curves) for curves in stage_curves(record.epochs, best_epochs(record))]


def best_epochs(record: RunRecord) -> dict[str, int]:
    """The best epoch of each stage: the recorded one, or the best so far by what the stage monitors."""
    best: dict[str, int] = {}
    for name in dict.fromkeys(epoch["stage"] for epoch in record.epochs):
        own = [epoch for epoch in record.epochs if epoch["stage"] == name]
        sign = -1.0 if get(record.config, "stages", name, "monitor") == "validation_accuracy" else 1.0
        key = "validation_loss" if sign > 0 else "validation_accuracy"
        values = [math.inf if not _is_finite(epoch[key]) else sign * epoch[key] for epoch in own]
        if min(values) < math.inf:
            best[name] = own[values.index(min(values))]["epoch"]
    for stage in get(record.result, "stages") or []:
        if isinstance(get(stage, "best_epoch"), int):
            best[str(get(stage, "name"))] = stage["best_epoch"]
    return best


def _facts(record: RunRecord, curves: StageCurves) -> StageFacts:
    charts = (_chart(curves, quantity) for quantity in QUANTITIES)
    found = overfitting(curves)
    return StageFacts(
        curves.stage,
        tuple(chart for chart in charts if chart is not None),
        _verdict(curves, record.finished),
        found is not None,
        tuple(epoch for epoch in record.epochs if epoch["stage"] == curves.stage),
        curves.best_epoch,
    )


def _chart(curves: StageCurves, quantity: str) -> Chart | None:
    series = []
    epochs = curves.epochs.tolist()
    for split in SPLITS:
        curve = curves.curves[f"{split}_{quantity}"]
        ring = curves.best_epoch if split == "validation" else None
        if len(epochs) < FEWEST_EPOCHS_SMOOTHED:
            series.append(Series(split, split, epochs, curve.values.tolist(), dots=True, ring=ring))
        else:
            raw = Series(f"{split}, each epoch", f"{split} raw", epochs, curve.values.tolist(), dots=True, ring=ring)
            series += [raw, Series(f"{split}, smoothed", split, epochs, curve.smoothed.tolist())]
    title = f"{quantity.capitalize()} of stage {curves.stage}"
    label = "loss (nats)" if quantity == "loss" else "accuracy"
    return line_chart(title, _described(curves, quantity), "epoch", label, series)


def _described(curves: StageCurves, quantity: str) -> str:
    parts = []
    for split in SPLITS:
        values = curves.curves[f"{split}_{quantity}"].values
        known = values[np.isfinite(values)]
        if len(known):
            part = f"{split} {quantity} goes from {known[0]:.4g} to {known[-1]:.4g}"
            place = np.flatnonzero(curves.epochs == curves.best_epoch)
            if split == "validation" and len(place):
                part += f" and is {values[place[0]]:.4g} in the best epoch, {curves.best_epoch}"
            parts.append(part)
    return f"Over {len(curves.epochs)} epochs, {'; '.join(parts)}."


def _verdict(curves: StageCurves, finished: bool) -> str:
    if curves.best_epoch is None:
        return "There is no validation, so no epoch is known to be the best."
    best = f"Best epoch{'' if finished else ' so far'}: {curves.best_epoch} of {len(curves.epochs)}."
    found = overfitting(curves)
    if found is None:
        return f"{best} No over-fitting is seen."
    return (
        f"{best} Over-fitting after about epoch {found.epoch}: smoothed, validation loss rose from {found.lowest:.4g} "
        f"to {found.final:.4g} while training loss fell from {found.train_then:.4g} to {found.train_final:.4g}."
    )


def overlaid_chart(quantity: str, runs: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]) -> Chart | None:
    """Validation curves of several runs over each other, across all their epochs from the first stage on.

    Args:
        quantity: `loss` or `accuracy`.
        runs: name and records of each.
    """
    series = []
    for place, (name, records) in enumerate(runs):
        found = [one.get(f"validation_{quantity}") for one in records]
        values = [math.nan if value is None else float(value) for value in found]
        series.append(Series(name, f"run{place}", list(range(1, len(values) + 1)), values, dots=True))
    ends = [f"{one.name} ends at {one.ys[-1]:.4g} after {len(one.ys)} epochs" for one in series if len(one.ys)]
    label = "validation loss (nats)" if quantity == "loss" else "validation accuracy"
    title = f"Validation {quantity}, all stages one after the other"
    return line_chart(title, f"{'; '.join(ends)}.", "epoch of the run", label, series)


def _is_finite(value: Any) -> bool:
    return value is not None and math.isfinite(value)
