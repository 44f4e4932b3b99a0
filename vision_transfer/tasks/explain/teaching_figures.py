"""Figures for teaching: classic filter banks with their answers, and convolution and pooling number by number."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from vision_transfer.tasks.explain.figures import DIVERGING, MEDIUM, SMALL, new_figure, show_picture, wrapped
from vision_transfer.tasks.explain.filter_banks import Kernel
from vision_transfer.tasks.explain.operations import Operation

# Filters side by side; each takes a row for itself and one for its answer.
COLUMNS = 4
CELL = 2.0
# An array with more rows or columns than this is drawn without its numbers.
MOST_NUMBERED = 12
# A number on a cell darker than this is written in white.
DARK = 0.45
PANEL = 3.6


def filter_bank_figure(
    picture: UInt8[np.ndarray, "height width channels"],
    title: str,
    kernels: Sequence[Kernel],
    answers: Float[np.ndarray, "kernels height width"],
) -> Any:
    """The picture, then each filter of a bank above its answer; each on a scale of its own around 0."""
    columns = min(COLUMNS, len(kernels))
    rows = -(-len(kernels) // columns)
    figure = new_figure(CELL * columns + CELL + 1.5, 1.85 * CELL * rows + 0.6)
    whole = figure.subfigures(1, 2, width_ratios=[1, columns])
    beside = whole[0].subplots()
    beside.set_anchor("N")
    show_picture(beside, picture, title, CELL)
    grid = whole[1].subplots(2 * rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    image = None
    for number, (kernel, answer) in enumerate(zip(kernels, answers, strict=True)):
        row, column = 2 * (number // columns), number % columns
        image = _around_zero(grid[row, column], kernel.values)
        grid[row, column].set_title(kernel.name.replace(", ", "\n", 1), fontsize=SMALL)
        _around_zero(grid[row + 1, column], answer)
    bar = figure.colorbar(image, ax=list(grid.flat), shrink=0.5, ticks=[-1, 0, 1])
    bar.ax.set_yticklabels(["−max", "0", "+max"])
    bar.set_label("weight (above) and answer (below)", fontsize=MEDIUM)
    return figure


def operations_figure(
    image: Float[np.ndarray, "height width"],
    kernel: Kernel,
    outputs: Sequence[Operation],
    title: str,
) -> Any:
    """The image, the kernel and what each operation makes of them, with the numbers in the cells where they fit."""
    panels = [(title, image), (f"kernel: {kernel.name}", kernel.values)]
    panels += [(operation.name, operation.output) for operation in outputs]
    rows = -(-len(panels) // COLUMNS)
    figure = new_figure(PANEL * COLUMNS, (PANEL + 0.3) * rows)
    grid = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    for axes, (name, values) in zip(grid[: len(panels)], panels, strict=True):
        _numbered(axes, values, name)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    return figure


def _around_zero(axes: Any, values: np.ndarray) -> Any:
    """Values on a scale from minus to plus their largest size, which is drawn as 1."""
    largest = float(np.abs(values).max()) or 1.0
    return axes.imshow(values / largest, cmap=DIVERGING, vmin=-1, vmax=1, interpolation="nearest")


def _numbered(axes: Any, values: np.ndarray, name: str) -> None:
    height, width = values.shape
    low, high = float(values.min()), float(values.max())
    if high == low:
        high = low + 1
    axes.imshow(values, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    axes.set_title(wrapped(f"{name}\n{height} × {width}", PANEL), fontsize=MEDIUM)
    axes.set_xticks([])
    axes.set_yticks([])
    if max(height, width) > MOST_NUMBERED:
        return
    for (row, column), value in np.ndenumerate(values):
        colour = "white" if (value - low) / (high - low) < DARK else "black"
        axes.text(column, row, _short(float(value)), ha="center", va="center", fontsize=SMALL, color=colour)


def _short(value: float) -> str:
    """At most four characters for values of a small image: `0.5`, `-12`, `1`."""
    rounded = round(value, 1)
    return f"{rounded:.0f}" if rounded == round(rounded) or abs(rounded) >= 10 else f"{rounded:.1f}"
