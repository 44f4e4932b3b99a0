"""Means with their intervals as lines, and the curves of a study."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vision_transfer.tasks.figures import line_style, new_axes
from vision_transfer.tasks.study.statistics import Summary
from vision_transfer.tasks.study.tables import Group

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Neighbouring lines are shifted by this factor on the logarithmic axis, so that their intervals do not overlap.
SHIFT = 1.06


def drawn_values(summaries: Sequence[Summary]) -> str:
    """The values of a figure in words, for its title."""
    return "mean and 95 % t interval" if any(one.count > 1 for one in summaries) else "single runs"


def draw_summaries(axes: Any, x: Sequence[float], values: Sequence[Summary], number: int, label: str) -> None:
    """Draws means with their 95 % t intervals as the line of this number; a single value has no interval."""
    reach = np.transpose([value.reach for value in values])
    axes.errorbar(x, [value.mean for value in values], yerr=reach, capsize=4, label=label, **line_style(number))


def curves_figure(groups: Sequence[Group], x: str, line: str, title: str) -> "Figure":
    """Mean test accuracy with its interval against label `x` (above 0, logarithmic), a line per value of `line`."""
    from matplotlib.ticker import NullFormatter, NullLocator

    figure, axes = new_axes(7.5, 4.8)
    variants = list(dict.fromkeys(group.labels[line] for group in groups))
    for number, variant in enumerate(variants):
        own = sorted((group for group in groups if group.labels[line] == variant), key=lambda group: group.labels[x])
        shift = SHIFT ** (number - (len(variants) - 1) / 2)
        label = str(variant).replace("_", " ")
        draw_summaries(
            axes, [float(group.labels[x]) * shift for group in own], [group.test for group in own], number, label
        )
    ticks = sorted({group.labels[x] for group in groups})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(x)
    axes.set_ylabel("test accuracy")
    axes.set_title(title)
    axes.legend(frameon=False, loc="lower right")
    return figure
