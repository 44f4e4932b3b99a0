"""Learning curves of a run: arrays from its `metrics.jsonl`, as recorded and smoothed, and the figure of both."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64, Int64

from vision_transfer.tasks.figures import COLOURS, DASHES, MARKERS, new_axes, save_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Chollet, "Deep Learning with Python" (2017), section 5.2: `smooth_curve(points, factor=0.8)`.
SMOOTHING_FACTOR = 0.8
QUANTITIES = ("loss", "accuracy")
SPLITS = ("train", "validation")
RAW_ALPHA = 0.4
# Inches; the legend needs the least width.
PANEL_WIDTH, PANEL_HEIGHT, LEAST_WIDTH = 4.2, 3.0, 7.0
PIXELS_PER_INCH = 120


@dataclass(frozen=True)
class StageCurves:
    """The curves of one stage: `train_loss`, `validation_accuracy` and so on, NaN where an epoch has no value."""

    stage: str
    epochs: Int64[np.ndarray, "epochs"]
    values: dict[str, Float64[np.ndarray, "epochs"]]
    best_epoch: int | None = None

    def smoothed(self, name: str) -> Float64[np.ndarray, "epochs"]:
        """Values of this name after `smooth`."""
        return smooth(self.values[name])


def smooth(values: Float64[np.ndarray, "epochs"], factor: float = SMOOTHING_FACTOR) -> Float64[np.ndarray, "epochs"]:
    """Exponential smoothing that starts at the first value: s₁ = v₁, sₜ = factor · sₜ₋₁ + (1 - factor) · vₜ.

    A value that is not finite becomes NaN and is skipped. `factor` is from 0 (no smoothing) to below 1.
    """
    smoothed = np.full(len(values), np.nan)
    last = None
    for place, value in enumerate(values):
        if math.isfinite(value):
            last = value if last is None else factor * last + (1 - factor) * value
            smoothed[place] = last
    return smoothed


def stage_curves(
    epochs: Iterable[Mapping[str, Any]], best_epochs: Mapping[str, int] | None = None
) -> list[StageCurves]:
    """The curves of each stage from the lines of `metrics.jsonl`, in which a value may be missing or None."""
    by_stage: dict[str, list[Mapping[str, Any]]] = {}
    for epoch in epochs:
        by_stage.setdefault(epoch["stage"], []).append(epoch)
    names = [f"{split}_{quantity}" for quantity in QUANTITIES for split in SPLITS]
    return [
        StageCurves(
            stage,
            np.array([epoch["epoch"] for epoch in lines], np.int64),
            {name: np.array([epoch.get(name) for epoch in lines], np.float64) for name in names},
            (best_epochs or {}).get(stage),
        )
        for stage, lines in by_stage.items()
    ]


def learning_curves_figure(stages: Sequence[StageCurves], title: str) -> "Figure":
    """A row of panels for the loss and one for the accuracy, a column for each stage.

    Thin lines with markers are the recorded values, thick lines the smoothed ones; a ring marks the best epoch.
    """
    columns = max(1, len(stages))
    width, rows = max(LEAST_WIDTH, PANEL_WIDTH * columns + 1), len(QUANTITIES)
    layout = {"sharex": "col", "sharey": "row", "squeeze": False}
    figure, panels = new_axes(width, PANEL_HEIGHT * rows + 0.8, rows, columns, **layout)
    for row, quantity in enumerate(QUANTITIES):
        for column, curves in enumerate(stages):
            _draw_panel(panels[row, column], curves, quantity)
        panels[row, 0].set_ylabel(quantity)
    for column, curves in enumerate(stages):
        panels[0, column].set_title(f"stage {curves.stage}")
        panels[-1, column].set_xlabel("epoch")
    handles = {
        label: handle for panel in panels.flat for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=5 if columns > 1 else 3, frameon=False
    )
    figure.suptitle(title)
    return figure


def draw_curves(epochs: Iterable[Mapping[str, Any]], best_epochs: Mapping[str, int], path: Path, title: str) -> None:
    """Writes the figure of a run's curves as a PNG file; see `stage_curves` and `learning_curves_figure`."""
    save_png(learning_curves_figure(stage_curves(epochs, best_epochs), title), path, PIXELS_PER_INCH)


def _draw_panel(axes: "Axes", stage: StageCurves, quantity: str) -> None:
    from matplotlib.ticker import MaxNLocator

    for split, colour, marker, dashes in zip(SPLITS, COLOURS, MARKERS, DASHES, strict=False):
        name = f"{split}_{quantity}"
        values = stage.values[name]
        if not np.isfinite(values).any():
            continue
        raw = {"marker": marker, "markersize": 3.5, "alpha": RAW_ALPHA, "linewidth": 1}
        axes.plot(stage.epochs, values, color=colour, label=f"{split}, each epoch", **raw)
        smoothed = {"linestyle": dashes, "linewidth": 2}
        axes.plot(stage.epochs, stage.smoothed(name), color=colour, label=f"{split}, smoothed", **smoothed)
        place = np.flatnonzero(stage.epochs == stage.best_epoch)
        if split == "validation" and len(place):
            ring = {"marker": "o", "markersize": 11, "fillstyle": "none", "color": "black", "linestyle": "none"}
            axes.plot(stage.epochs[place], values[place], label="best epoch", clip_on=False, zorder=3, **ring)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
