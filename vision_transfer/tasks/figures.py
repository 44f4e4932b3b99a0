"""Figures that several tasks draw: their set-up, the style of their lines, and their files."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vision_transfer.runtime.files import replaced_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which is safe for colour-blind readers; markers and dashes differ too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":")
POINTS_PER_INCH = 72


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of this size in inches, without pyplot and its global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def new_axes(width: float, height: float, rows: int = 1, columns: int = 1, **layout: Any) -> tuple["Figure", Any]:
    """A figure of this size in inches, and its axes as matplotlib's `subplots` returns them, with a light grid."""
    figure = new_figure(width, height)
    axes = figure.subplots(rows, columns, **layout)
    for one in figure.axes:
        one.grid(alpha=0.3)
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def line_style(number: int) -> dict[str, Any]:
    """Colour, marker and dashes of the line of this number."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": DASHES[number % len(DASHES)],
        "markersize": 6,
        "linewidth": 2,
    }


def save_png(figure: "Figure", path: Path, pixels_per_inch: int = 150) -> Path:
    """Writes a figure as a PNG file; returns the file."""
    with replaced_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=pixels_per_inch)
    return path
