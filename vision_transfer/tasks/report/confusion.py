"""The confusion matrix of the test split as a figure."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

from vision_transfer.tasks.figures import POINTS_PER_INCH, drawable, new_figure, save_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# With more classes, cells have colours but no numbers.
CELLS_WITH_NUMBERS = 30
INCHES_PER_CLASS, MARGIN_INCHES = 0.42, 2.4
SMALLEST_INCHES, LARGEST_INCHES = 4.2, 15.0
LARGEST_FONT, SMALLEST_FONT = 11.0, 4.5
# Font sizes as shares of a row's height; a number must also leave room beside it in its cell.
LABEL_SHARE, NUMBER_SHARE = 0.62, 0.42
LONGEST_NAME = 24
# Shades are this power of the shares, so that one error in a hundred is visible beside the diagonal.
SHADE_EXPONENT = 0.5
# Numbers on darker shades are white.
DARK = 0.55
PIXELS_PER_INCH = 120


def confusion_figure(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> "Figure":
    """A row per label, a column per prediction; colours are shares of a row, numbers are images.

    `confusion` has `[label][predicted]` counts, as in `result.json`.
    """
    from matplotlib.colors import PowerNorm

    counts = np.asarray(confusion, np.int64)
    side = float(np.clip(INCHES_PER_CLASS * len(classes) + MARGIN_INCHES, SMALLEST_INCHES, LARGEST_INCHES))
    row_points = (side - MARGIN_INCHES) / len(classes) * POINTS_PER_INCH
    figure = new_figure(side + 0.8, side)
    axes = figure.subplots()
    shares = row_shares(counts)
    norm = PowerNorm(SHADE_EXPONENT, vmin=0, vmax=1)
    image = axes.imshow(shares, cmap="Blues", norm=norm)
    names = [_shortened(drawable(name)) for name in classes]
    font = _font(row_points * LABEL_SHARE)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=font)
    axes.set_yticks(range(len(names)), names, fontsize=font)
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    if len(classes) <= CELLS_WITH_NUMBERS:
        digits = len(str(counts.max()))
        number_font = _font(row_points * min(NUMBER_SHARE, 1.3 / digits))
        for label, predicted in np.argwhere(counts):
            axes.text(
                predicted,
                label,
                str(counts[label, predicted]),
                ha="center",
                va="center",
                fontsize=number_font,
                color="white" if norm(shares[label, predicted]) > DARK else "black",
            )
    right, total = int(np.trace(counts)), int(counts.sum())
    axes.set_title(f"{right:,} of {total:,} images correct", fontsize=LARGEST_FONT)
    figure.colorbar(image, ax=axes, label="share of the label's images", shrink=0.8)
    return figure


def draw_confusion(confusion: Sequence[Sequence[int]], classes: Sequence[str], path: Path) -> None:
    """Writes `confusion_figure` as a PNG file."""
    save_png(confusion_figure(confusion, classes), path, PIXELS_PER_INCH)


def row_shares(counts: Int[np.ndarray, "classes classes"]) -> np.ndarray:
    """Each row divided by its sum, float64; a class without images has a row of zeros."""
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def _font(points: float) -> float:
    return float(np.clip(points, SMALLEST_FONT, LARGEST_FONT))


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
