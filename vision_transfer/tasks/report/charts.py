"""Where the lines, dots and ticks of a chart stand: geometry as plain data, which a template draws as SVG.

Own geometry, and not a figure of matplotlib's, so that colours follow the reader's light or dark mode, text is text at
a size that can be read on a phone, and a screen reader is told what the chart says.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Of the view box, in units that are about a CSS pixel on a phone.
WIDTH, HEIGHT = 360.0, 236.0
LEFT, RIGHT, TOP, BOTTOM = 62.0, 12.0, 14.0, 42.0
MOST_TICKS = 5
# Losses that span more than this factor are drawn on a logarithmic axis.
LINEAR_SPAN = 20.0
# Single epochs are marked by dots as long as there are not too many to tell apart.
MOST_DOTS = 40


@dataclass(frozen=True)
class Series:
    """One line of a chart, in the data's units.

    Attributes:
        name: for the legend.
        style: its CSS class, which has colour and dashes.
        xs: values across.
        ys: values upwards; NaN leaves a gap.
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
class Tick:
    """A tick: where it stands along its axis, and what is written there."""

    place: float
    label: str


@dataclass(frozen=True)
class DrawnSeries:
    """One line of a chart, in the view box: an SVG path, the dots, and the ringed one."""

    style: str
    path: str
    dots: tuple[tuple[float, float], ...]
    ring: tuple[float, float] | None


@dataclass(frozen=True)
class Span:
    """A vertical error bar in the view box."""

    x: float
    low: float
    high: float


@dataclass(frozen=True)
class Bar:
    """A bar of a histogram in the view box, standing on the axis across."""

    x: float
    width: float
    height: float


@dataclass(frozen=True)
class Chart:
    """A chart ready to be drawn.

    Attributes:
        title: what it shows, for everyone.
        description: what is to be seen in it, for those who do not see it.
        x_label: name and unit of the axis across.
        y_label: the same upwards.
        x_ticks: along it.
        y_ticks: along it.
        lines: the drawn series.
        legend: name and style of each.
        spans: error bars.
        bars: of a histogram.
    """

    title: str
    description: str
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[DrawnSeries, ...]
    legend: tuple[tuple[str, str], ...]
    spans: tuple[Span, ...] = ()
    bars: tuple[Bar, ...] = ()

    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM


@dataclass(frozen=True)
class Scale:
    """A straight or logarithmic way from the data's units to the view box.

    Attributes:
        low: value at `start`.
        high: value at `end`.
        start: place of the lowest value.
        end: place of the highest.
        logarithmic: whether equal factors take equal lengths.
    """

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Where a value stands."""
        low, high, value = (
            (math.log(number) for number in (self.low, self.high, value))
            if self.logarithmic
            else (self.low, self.high, value)
        )
        return round(self.start + (value - low) / (high - low) * (self.end - self.start), 1)


def line_chart(
    title: str, description: str, x_label: str, y_label: str, series: Sequence[Series], *, y_low: float | None = None
) -> Chart | None:
    """A chart of lines over whole numbers such as epochs; None where no series has a finite value.

    Args:
        title: of the chart.
        description: for screen readers.
        x_label: of the axis across.
        y_label: of the axis upwards.
        series: the lines.
        y_low: where the axis upwards starts; None to choose it, and whether it is logarithmic, by the values.
    """
    xs = np.concatenate([np.asarray(one.xs, np.float64) for one in series]) if series else np.zeros(0)
    ys = np.concatenate([np.asarray(one.ys, np.float64) for one in series]) if series else np.zeros(0)
    finite = ys[np.isfinite(ys)]
    if not len(finite):
        return None
    low, high = float(finite.min()), float(finite.max())
    logarithmic = y_low is None and low > 0 and high / low > LINEAR_SPAN
    y_ticks, (low, high) = _ticks(low if y_low is None else y_low, high, logarithmic=logarithmic)
    x_ticks, _ = _ticks(float(xs.min()), float(xs.max()), whole=True)
    across = _widened(float(xs.min()), float(xs.max()))
    x_scale = Scale(*across, LEFT + 6, WIDTH - RIGHT - 6)
    y_scale = Scale(low, high, HEIGHT - BOTTOM, TOP, logarithmic)
    return Chart(
        title,
        description,
        x_label,
        f"{y_label}, logarithmic" if logarithmic else y_label,
        tuple(Tick(x_scale.place(value), _number(value)) for value in x_ticks if across[0] <= value <= across[1]),
        tuple(Tick(y_scale.place(value), _number(value)) for value in y_ticks),
        tuple(drawn(one, x_scale, y_scale) for one in series),
        tuple((one.name, one.style) for one in series if np.isfinite(one.ys).any()),
    )


def drawn(series: Series, x_scale: Scale, y_scale: Scale) -> DrawnSeries:
    """A series in the view box; a value that is not finite leaves a gap."""
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
    dots = tuple(point for _, point in points) if shown else ()
    ring = next((point for x, point in points if x == series.ring), None)
    return DrawnSeries(series.style, "".join(path), dots, ring)


def _ticks(
    low: float, high: float, *, logarithmic: bool = False, whole: bool = False
) -> tuple[list[float], tuple[float, float]]:
    """Round numbers that enclose (on an axis of whole numbers: lie in) a range, and the range that they enclose."""
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
    values = MaxNLocator(MOST_TICKS, integer=whole, steps=steps).tick_values(low, high)
    values = [float(value) for value in values]
    if whole:
        # in a narrow range the locator gives parts of whole numbers after all
        values = [value for value in values if value == round(value)]
    return values, (min(values[0], low), max(values[-1], high))


def _widened(low: float, high: float) -> tuple[float, float]:
    """A range that is not empty."""
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _number(value: float) -> str:
    return f"{value:.6g}"
