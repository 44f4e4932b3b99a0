"""Geometry of charts as plain data, which a template draws as SVG.

Unlike matplotlib's figures, these charts follow the reader's light or dark mode, have text that can be read on a phone,
and describe themselves to a screen reader.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vision_transfer.metrics.calibration import Reliability
from vision_transfer.metrics.classification import wilson_interval

# Size and margins of the view box, in units of about a CSS pixel on a phone.
WIDTH, HEIGHT = 360.0, 236.0
LEFT, RIGHT, TOP, BOTTOM = 62.0, 12.0, 14.0, 42.0
MOST_TICKS = 5
# Losses that span more than this factor are drawn on a logarithmic axis.
LINEAR_SPAN = 20.0
# With more epochs, single dots could not be told apart and are left out.
MOST_DOTS = 40
# The highest bar of a histogram takes this share of the chart's height.
HISTOGRAM_SHARE = 0.25
SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


# A chart in the view box, for the template: texts, `x_ticks` and `y_ticks` as (place, label), `lines`, `legend` as
# (name, style), `spans` (error bars) as (x, low, high), and `bars` of a histogram as (x, width, height).
Chart = dict[str, Any]
EMPTY: Chart = {
    "width": WIDTH,
    "height": HEIGHT,
    "left": LEFT,
    "right": WIDTH - RIGHT,
    "top": TOP,
    "bottom": HEIGHT - BOTTOM,
    "spans": [],
    "bars": [],
}


@dataclass(frozen=True)
class Series:
    """One line of a chart in the data's units; NaN in `ys` leaves a gap.

    Attributes:
        name: for the legend.
        style: CSS class, which has colour and dashes.
        dots: whether the values are marked by dots.
        ring: the x whose value is ringed, or None.
    """

    name: str
    style: str
    xs: Sequence[float]
    ys: Sequence[float]
    dots: bool = False
    ring: float | None = None


@dataclass(frozen=True)
class Scale:
    """Maps values from `low` to `high` to places from `start` to `end`, linearly or logarithmically."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """The place of a value in the view box."""
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return round(self.start + (value - low) / (high - low) * (self.end - self.start), 1)


def line_chart(
    title: str, description: str, x_label: str, y_label: str, series: Sequence[Series], *, is_loss: bool
) -> Chart | None:
    """A chart of lines over whole numbers such as epochs; None where no series has a finite value.

    The vertical axis of a loss is logarithmic where all values are positive and span more than `LINEAR_SPAN`.
    """
    xs = np.concatenate([np.asarray(one.xs, np.float64) for one in series]) if series else np.zeros(0)
    ys = np.concatenate([np.asarray(one.ys, np.float64) for one in series]) if series else np.zeros(0)
    finite = ys[np.isfinite(ys)]
    if not len(finite):
        return None
    low, high = float(finite.min()), float(finite.max())
    logarithmic = is_loss and low > 0 and high / low > LINEAR_SPAN
    y_ticks, (low, high) = _ticks(low, high, logarithmic=logarithmic)
    x_ticks, _ = _ticks(float(xs.min()), float(xs.max()), whole=True)
    first, last = _widened(float(xs.min()), float(xs.max()))
    x_scale = Scale(first, last, LEFT + 6, WIDTH - RIGHT - 6)
    y_scale = Scale(low, high, HEIGHT - BOTTOM, TOP, logarithmic)
    return EMPTY | {
        "title": title,
        "description": description,
        "x_label": x_label,
        "y_label": f"{y_label}, logarithmic" if logarithmic else y_label,
        "x_ticks": [(x_scale.place(value), f"{value:.6g}") for value in x_ticks if first <= value <= last],
        "y_ticks": [(y_scale.place(value), f"{value:.6g}") for value in y_ticks],
        "lines": [_drawn(one, x_scale, y_scale) for one in series],
        "legend": [(one.name, one.style) for one in series if np.isfinite(one.ys).any()],
    }


def share_chart(title: str, x_label: str, y_label: str, series: Sequence[Series]) -> Chart:
    """A chart of lines whose both axes go from 0 to 1; its description is the names of the lines."""
    x_scale, y_scale = Scale(0, 1, LEFT, WIDTH - RIGHT), Scale(0, 1, HEIGHT - BOTTOM, TOP)
    return EMPTY | {
        "title": title,
        "description": f"Lines: {'; '.join(one.name for one in series)}.",
        "x_label": x_label,
        "y_label": y_label,
        "x_ticks": [(x_scale.place(share), f"{share:g}") for share in SHARES],
        "y_ticks": [(y_scale.place(share), f"{share:g}") for share in SHARES],
        "lines": [_drawn(one, x_scale, y_scale) for one in series],
        "legend": [(one.name, one.style) for one in series],
    }


def reliability_chart(found: Reliability, error: float) -> Chart:
    """Accuracy against confidence over a histogram of the confidences.

    Dots are the bins that have examples, with 95 % Wilson intervals; the dashed line is perfect calibration. `error` is
    the expected calibration error.
    """
    x_scale, y_scale = Scale(0, 1, LEFT, WIDTH - RIGHT), Scale(0, 1, HEIGHT - BOTTOM, TOP)
    filled = np.flatnonzero(found.counts)
    counts, confidence, accuracy = (
        values[filled].tolist() for values in (found.counts, found.confidence, found.accuracy)
    )
    series = (
        Series("perfect calibration", "reference", (0.0, 1.0), (0.0, 1.0)),
        Series("this run, with 95 % intervals", "bins", confidence, accuracy, dots=True),
    )
    intervals = [wilson_interval(int(found.hits[place]), int(found.counts[place])) for place in filled]
    highest = found.counts.max(initial=1)
    room = HISTOGRAM_SHARE * (HEIGHT - TOP - BOTTOM)
    edges = [x_scale.place(edge) for edge in found.edges]
    bins = [
        f"confidence {x:.2f}, accuracy {y:.2f}, {count} images"
        for x, y, count in zip(confidence, accuracy, counts, strict=True)
    ]
    title, x_label = "Calibration", "confidence (probability of the predicted class)"
    chart = share_chart(title, x_label, "accuracy", series)
    return chart | {
        "description": f"Expected calibration error {error:.3f}. By bin: {'; '.join(bins)}.",
        "legend": [*chart["legend"], ("number of images with this confidence", "histogram")],
        "spans": [
            (x_scale.place(x), y_scale.place(low), y_scale.place(high))
            for x, (low, high) in zip(confidence, intervals, strict=True)
        ],
        "bars": [
            # a gap of one unit on either side
            (edges[place] + 1, round(edges[place + 1] - edges[place] - 2, 1), round(float(room * count / highest), 1))
            for place, count in zip(filled, counts, strict=True)
        ],
    }


def _drawn(series: Series, x_scale: Scale, y_scale: Scale) -> dict[str, Any]:
    """A series in the view box: an SVG path, with a gap at each value that is not finite, the dots, and the ring."""
    points, path, pen_down = [], [], False
    for x, y in zip(series.xs, series.ys, strict=True):
        if not math.isfinite(y):
            pen_down = False
            continue
        point = (x_scale.place(x), y_scale.place(y))
        path.append(f"{'L' if pen_down else 'M'}{point[0]} {point[1]}")
        points.append((x, point))
        pen_down = True
    shown = len(points) == 1 or (series.dots and len(points) <= MOST_DOTS)
    return {
        "style": series.style,
        "path": "".join(path),
        "dots": [point for _, point in points] if shown else [],
        "ring": next((point for x, point in points if x == series.ring), None),
    }


def _ticks(
    low: float, high: float, *, logarithmic: bool = False, whole: bool = False
) -> tuple[list[float], tuple[float, float]]:
    """Round numbers that enclose a range (or, if `whole`, lie in it), and the range that they enclose."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    if logarithmic:
        decades = math.log10(high / low)
        steps = (1.0, 2.0, 5.0) if decades < MOST_TICKS / 2 else (1.0,)
        values = LogLocator(subs=steps, numticks=99).tick_values(low, high)
        values = [float(value) for value in values if low / 10 < value < high * 10]
        first = max((value for value in values if value <= low), default=low)
        last = min((value for value in values if value >= high), default=high)
        return [value for value in values if first <= value <= last], (first, last)
    low, high = _widened(low, high)
    steps = [1, 2, 5, 10] if whole else [1, 2, 2.5, 5, 10]
    values = map(float, MaxNLocator(MOST_TICKS, integer=whole, steps=steps).tick_values(low, high))
    # in a narrow range the locator gives fractions even with `integer`
    values = [value for value in values if not whole or value == round(value)]
    return values, (min(values[0], low), max(values[-1], high))


def _widened(low: float, high: float) -> tuple[float, float]:
    """The range, or one of width 1 around it where it is empty."""
    return (low, high) if high > low else (low - 0.5, high + 0.5)
