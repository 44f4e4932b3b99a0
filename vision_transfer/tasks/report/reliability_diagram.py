"""The calibration curve as a chart: accuracy against confidence, with intervals, over a histogram."""

import numpy as np

from vision_transfer.metrics.calibration import Reliability
from vision_transfer.metrics.classification import wilson_interval
from vision_transfer.tasks.report.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Bar,
    Chart,
    Scale,
    Series,
    Span,
    Tick,
    drawn,
)

# The highest bar of the histogram takes this share of the chart's height.
HISTOGRAM_SHARE = 0.25
SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def reliability_chart(found: Reliability, error: float) -> Chart:
    """Dots are the bins that have examples, their bars 95 % Wilson intervals; the dashed line is perfect calibration.

    Args:
        found: the bins.
        error: the expected calibration error.
    """
    x_scale, y_scale = Scale(0, 1, LEFT, WIDTH - RIGHT), Scale(0, 1, HEIGHT - BOTTOM, TOP)
    filled = np.flatnonzero(found.counts)
    confidence, accuracy = found.confidence[filled].tolist(), found.accuracy[filled].tolist()
    series = (
        Series("perfect calibration", "reference", (0.0, 1.0), (0.0, 1.0)),
        Series("this run, with 95 % intervals", "bins", confidence, accuracy, dots=True),
    )
    intervals = [wilson_interval(int(found.hits[place]), int(found.counts[place])) for place in filled]
    spans = tuple(
        Span(x_scale.place(x), y_scale.place(low), y_scale.place(high))
        for x, (low, high) in zip(confidence, intervals, strict=True)
    )
    highest = found.counts.max(initial=1)
    room = HISTOGRAM_SHARE * (HEIGHT - TOP - BOTTOM)
    edges = [x_scale.place(edge) for edge in found.edges]
    bars = tuple(
        Bar(edges[place] + 1, round(edges[place + 1] - edges[place] - 2, 1), round(float(room * count / highest), 1))
        for place, count in enumerate(found.counts)
        if count
    )
    return Chart(
        title="Calibration on the test images",
        description=_described(found, filled, error),
        x_label="confidence (probability of the predicted class)",
        y_label="accuracy",
        x_ticks=tuple(Tick(x_scale.place(share), f"{share:g}") for share in SHARES),
        y_ticks=tuple(Tick(y_scale.place(share), f"{share:g}") for share in SHARES),
        lines=tuple(drawn(one, x_scale, y_scale) for one in series),
        legend=(*((one.name, one.style) for one in series), ("how many images have this confidence", "histogram")),
        spans=spans,
        bars=bars,
    )


def _described(found: Reliability, filled: np.ndarray, error: float) -> str:
    bins = [
        f"confidence {found.confidence[place]:.2f}, accuracy {found.accuracy[place]:.2f}, {found.counts[place]} images"
        for place in filled
    ]
    return f"Expected calibration error {error:.3f}. By bin: {'; '.join(bins)}."
