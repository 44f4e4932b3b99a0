"""Learning curves of a run: arrays from its `metrics.jsonl`, as recorded and smoothed, and the figure of both."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64, Int64

from vision_transfer.runtime.files import replaced_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Chollet, "Deep Learning with Python" (2017), section 5.2: `smooth_curve(points, factor=0.8)`.
SMOOTHING_FACTOR = 0.8
QUANTITIES = ("loss", "accuracy")
SPLITS = ("train", "validation")
# Okabe and Ito's palette, which the colour-blind can tell apart; dashes and markers differ too.
STYLES = {
    "train": {"color": "#0072B2", "marker": "o", "linestyle": "-"},
    "validation": {"color": "#D55E00", "marker": "s", "linestyle": "--"},
}
RAW_ALPHA = 0.4
# Inches; the legend needs the least width.
PANEL_WIDTH, PANEL_HEIGHT, LEAST_WIDTH = 4.2, 3.0, 7.0
PIXELS_PER_INCH = 120


@dataclass(frozen=True)
class Curve:
    """A quantity over the epochs of a stage, as recorded (NaN where an epoch has no value) and smoothed by `smooth`."""

    values: Float64[np.ndarray, "epochs"]
    smoothed: Float64[np.ndarray, "epochs"]


@dataclass(frozen=True)
class StageCurves:
    """The curves of one stage.

    Attributes:
        stage: its name.
        epochs: numbers from 1.
        curves: by `train_loss`, `train_accuracy`, `validation_loss`, `validation_accuracy`.
        best_epoch: None where it is not known.
    """

    stage: str
    epochs: Int64[np.ndarray, "epochs"]
    curves: dict[str, Curve]
    best_epoch: int | None = None


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
    """The curves of each stage, in the order in which the stages ran.

    Args:
        epochs: the lines of `metrics.jsonl`, in order; a value may be missing or None.
        best_epochs: the best epoch of each stage, from `stages` of `result.json`.
    """
    by_stage: dict[str, list[Mapping[str, Any]]] = {}
    for epoch in epochs:
        by_stage.setdefault(epoch["stage"], []).append(epoch)
    names = [f"{split}_{quantity}" for quantity in QUANTITIES for split in SPLITS]
    return [
        StageCurves(
            stage,
            np.array([epoch["epoch"] for epoch in lines], np.int64),
            {name: _curve([epoch.get(name) for epoch in lines]) for name in names},
            (best_epochs or {}).get(stage),
        )
        for stage, lines in by_stage.items()
    ]


def draw_curves(stages: Sequence[StageCurves], title: str = "") -> "Figure":
    """A row of panels for the loss and one for the accuracy, a column for each stage.

    Thin lines with markers are the recorded values, thick lines the smoothed ones; a ring marks the best epoch.
    """
    from matplotlib.figure import Figure

    columns = max(1, len(stages))
    size = (max(LEAST_WIDTH, PANEL_WIDTH * columns + 1), PANEL_HEIGHT * len(QUANTITIES) + 0.8)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(QUANTITIES), columns, sharex="col", sharey="row", squeeze=False)
    for row, quantity in enumerate(QUANTITIES):
        for column, curves in enumerate(stages):
            _draw_panel(panels[row, column], curves, quantity)
        panels[row, 0].set_ylabel(quantity)
    for column, curves in enumerate(stages):
        panels[0, column].set_title(f"stage {curves.stage}", parse_math=False)
        panels[-1, column].set_xlabel("epoch")
    handles = {
        label: handle for panel in panels.flat for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=5 if columns > 1 else 3, frameon=False
    )
    if title:
        figure.suptitle(title, parse_math=False)
    return figure


def write_curves(
    epochs: Iterable[Mapping[str, Any]], best_epochs: Mapping[str, int], path: Path, title: str = ""
) -> None:
    """Writes the figure of a run's curves as a PNG file; see `stage_curves` and `draw_curves`."""
    figure = draw_curves(stage_curves(epochs, best_epochs), title)
    with replaced_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=PIXELS_PER_INCH)


def _curve(values: Sequence[float | None]) -> Curve:
    array = np.array([math.nan if value is None else value for value in values], np.float64)
    return Curve(array, smooth(array))


def _draw_panel(axes: "Axes", stage: StageCurves, quantity: str) -> None:
    from matplotlib.ticker import MaxNLocator

    for split in SPLITS:
        curve = stage.curves[f"{split}_{quantity}"]
        if not np.isfinite(curve.values).any():
            continue
        style = STYLES[split]
        raw = {"color": style["color"], "alpha": RAW_ALPHA, "linewidth": 1}
        axes.plot(
            stage.epochs, curve.values, marker=style["marker"], markersize=3.5, label=f"{split}, each epoch", **raw
        )
        smoothed = {"color": style["color"], "linestyle": style["linestyle"], "linewidth": 2}
        axes.plot(stage.epochs, curve.smoothed, label=f"{split}, smoothed", **smoothed)
        place = np.flatnonzero(stage.epochs == stage.best_epoch)
        if split == "validation" and len(place):
            ring = {"marker": "o", "markersize": 11, "fillstyle": "none", "color": "black", "linestyle": "none"}
            axes.plot(stage.epochs[place], curve.values[place], label="best epoch", clip_on=False, zorder=3, **ring)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
