"""The transferability curve: all scores of all layers against depth."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vision_transfer.models.layers import Row, row_numbers
from vision_transfer.tasks.figures import drawable, line_style, new_axes
from vision_transfer.tasks.probe.recommend import Recommendation
from vision_transfer.tasks.probe.scores import LayerScores

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHADE = "#E6E6E6"
INCHES_PER_LAYER, SMALLEST_WIDTH, HEIGHT = 0.42, 7.0, 6.4


def transfer_figure(
    scores: Sequence[LayerScores], recommendation: Recommendation, backbone: Sequence[Row], chance: float, title: str
) -> "Figure":
    """Two panels over the same layers: the accuracies of both probes, and LogME, which has another unit.

    Layers that are as good as the best are shaded; a line marks where the recommended mask starts to train.
    """
    width = max(SMALLEST_WIDTH, INCHES_PER_LAYER * len(scores))
    figure, (upper, lower) = new_axes(width, HEIGHT, rows=2, sharex=True, height_ratios=(3, 2))
    probes = [one.probe for one in scores]
    # Rounding may put an interval's end at 1 slightly below the value, and an error bar must not be negative.
    below = [max(0.0, one.probe - one.probe_interval[0]) for one in scores]
    above = [max(0.0, one.probe_interval[1] - one.probe) for one in scores]
    upper.errorbar(range(len(scores)), probes, yerr=(below, above), capsize=3, label="logistic probe", **line_style(0))
    upper.plot([one.nearest_mean for one in scores], label="nearest class mean", **line_style(1))
    upper.axhline(chance, color="0.4", linewidth=1, linestyle=":", label="commonest class")
    lower.plot([one.logme for one in scores], label="LogME", **line_style(2))
    for axes in (upper, lower):
        _mark(axes, scores, recommendation, backbone, labelled=axes is upper)
    upper.legend(frameon=False, loc="best")
    upper.set_ylabel("cross-validated accuracy")
    lower.set_ylabel("LogME (nats per image)")
    names = [drawable(one.layer) for one in scores]
    lower.set_xticks(range(len(scores)), names, rotation=60, ha="right", rotation_mode="anchor")
    upper.set_title(f"{title}\nrecommended: freeze {recommendation.freeze}")
    return figure


def _mark(
    axes: "Axes",
    scores: Sequence[LayerScores],
    recommendation: Recommendation,
    backbone: Sequence[Row],
    *,
    labelled: bool,
) -> None:
    shown = "as good as the best" if labelled else None
    for place, one in enumerate(scores):
        if one.layer in recommendation.as_good:
            axes.axvspan(place - 0.5, place + 0.5, color=SHADE, linewidth=0, zorder=0, label=shown)
            shown = None
    numbers = row_numbers(backbone)
    kind, _, first = recommendation.freeze.partition(":")
    start = {"all": len(backbone), "none": 0}.get(kind)
    start = numbers[first] if start is None else start
    edge = sum(numbers[one.layer] < start for one in scores) - 0.5
    axes.axvline(edge, color="black", linewidth=1.5, linestyle="--", label="trains from here" if labelled else None)
