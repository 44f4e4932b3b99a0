"""Accuracy against a number, a line per variant, with intervals over repeated runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vision_transfer.runtime.files import replaced_file
from vision_transfer.tasks.study.tables import Group

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which the colour-blind tell apart; markers and dashes differ too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":")
# Points of neighbouring lines stand this factor apart on the logarithmic axis, so that intervals do not overlap.
SIDESTEP = 1.06
PIXELS_PER_INCH = 150


def curves_figure(groups: Sequence[Group], x: str, line: str, title: str) -> "Figure":
    """Mean test accuracy with its 95 % t interval against label `x`, a line per value of `line`.

    Args:
        groups: with numbers above 0 under `x`; a group of one run has no interval.
        x: label of the horizontal axis, which is logarithmic.
        line: label that tells the lines apart.
        title: above the axes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, NullLocator

    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    variants = list(dict.fromkeys(group.labels[line] for group in groups))
    for place, variant in enumerate(variants):
        own = sorted((group for group in groups if group.labels[line] == variant), key=lambda group: group.labels[x])
        sidestep = SIDESTEP ** (place - (len(variants) - 1) / 2)
        axes.errorbar(
            [float(group.labels[x]) * sidestep for group in own],
            [group.test.mean for group in own],
            yerr=np.transpose([group.test.reach for group in own]),
            color=COLOURS[place % len(COLOURS)],
            marker=MARKERS[place % len(MARKERS)],
            linestyle=DASHES[place % len(DASHES)],
            linewidth=2,
            markersize=6,
            capsize=4,
            label=str(variant).replace("_", " "),
        )
    ticks = sorted({group.labels[x] for group in groups})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(x)
    axes.set_ylabel("test accuracy")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    return figure


def draw_curves(groups: Sequence[Group], x: str, line: str, title: str, path: Path) -> None:
    """Writes `curves_figure` as a PNG file."""
    with replaced_file(path) as temporary:
        curves_figure(groups, x, line, title).savefig(temporary, format="png", dpi=PIXELS_PER_INCH)
