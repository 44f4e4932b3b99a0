"""What all figures of this room share: a page to draw on, pictures, and cells with labels."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from vision_transfer.runtime.files import replaced_file

DOTS_PER_INCH = 100
# Matplotlib's maps of even lightness: one for values from low to high, one around zero.
SEQUENTIAL, DIVERGING = "viridis", "PuOr"
NOTHING_COLOUR = "#d9d9d9"
# Rank of an array of cells in colour.
COLOUR_RANK = 3
SMALL, MEDIUM = 8, 10
POINTS_PER_INCH = 72
# Mean width of a letter of matplotlib's DejaVu Sans as a share of the font's size, with some room to spare.
LETTER_WIDTH = 0.62


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib figure of this many inches, whose parts are kept apart."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Any, path: Path) -> None:
    """Writes a figure as PNG."""
    with replaced_file(path) as temporary:
        figure.savefig(temporary, format="png")


def save_picture(picture: np.ndarray, path: Path) -> None:
    """Writes `(height, width, 3) uint8` as PNG, pixel for pixel."""
    from PIL import Image

    with replaced_file(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")


def wrapped(text: str, inches: float, points: float = MEDIUM) -> str:
    """The text in lines that have room in this width; lines that it has already stay apart."""
    letters = max(1, int(inches * POINTS_PER_INCH / (points * LETTER_WIDTH)))
    return "\n".join(part for line in text.splitlines() for part in textwrap.wrap(line, letters))


def show_picture(axes: Any, picture: np.ndarray, title: str, inches: float) -> None:
    """A picture, RGB or grey, uint8 or 0–1, without axes, under a title in lines of this width."""
    squeezed = picture[..., 0] if picture.ndim == 3 and picture.shape[-1] == 1 else picture
    axes.imshow(squeezed, cmap="gray", vmin=0, vmax=255 if picture.dtype == np.uint8 else 1)
    axes.set_title(wrapped(title, inches), fontsize=MEDIUM)
    axes.set_axis_off()


def tiled(
    cells: Sequence[Float[np.ndarray, "height width *channels"]], columns: int, gap: int = 1
) -> Float[np.ndarray, "rows_of_cells columns_of_cells *channels"]:
    """Cells of one size as one array, row after row, with NaN between them and where none is left."""
    height, width, *channels = cells[0].shape
    rows = -(-len(cells) // columns)
    page = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, *channels), np.nan, np.float32)
    for number, cell in enumerate(cells):
        top, left = number // columns * (height + gap), number % columns * (width + gap)
        page[top : top + height, left : left + width] = cell
    return page


def show_tiles(
    axes: Any, cells: Sequence[np.ndarray], columns: int, numbers: Sequence[int] | None = None, what: str = "channel"
) -> Any:
    """Cells in a grid. Consecutive numbers are read off its edges; others stand above each cell.

    Args:
        axes: matplotlib's.
        cells: 0–1, of one size: `(height, width)` for the map from low to high, or `(height, width, 3)`.
        columns: cells in a row.
        numbers: of the cells; None counts from 0.
        what: has these numbers.

    Returns:
        Matplotlib's image, for a colour bar.
    """
    from matplotlib import colormaps

    columns = min(columns, len(cells))
    height, width = cells[0].shape[:2]
    gap = max(1, round(max(height, width) / 24))
    page = tiled(cells, columns, gap)
    colours = colormaps[SEQUENTIAL].with_extremes(bad=NOTHING_COLOUR)
    if page.ndim == COLOUR_RANK:
        page = np.where(np.isnan(page), 1, page)
    image = axes.imshow(page, cmap=colours, vmin=0, vmax=1, interpolation="auto", aspect="equal")
    rows = -(-len(cells) // columns)
    across = [column * (width + gap) + (width - 1) / 2 for column in range(columns)]
    down = [row * (height + gap) + (height - 1) / 2 for row in range(rows)]
    if numbers is None or list(numbers) == list(range(len(cells))):
        axes.set_xticks(across, [str(column) for column in range(columns)], fontsize=SMALL)
        axes.set_yticks(down, [str(row * columns) for row in range(rows)], fontsize=SMALL)
        axes.set_xlabel(f"{what} = number at the left + number below", fontsize=MEDIUM)
    else:
        axes.set_xticks([])
        axes.set_yticks([])
        for cell, number in enumerate(numbers):
            axes.text(
                across[cell % columns],
                down[cell // columns] - height / 2,
                f"{what} {number}" if columns <= 4 else str(number),
                fontsize=SMALL,
                ha="center",
                va="top",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            )
        axes.set_xlabel(f"the number of each {what} stands in its cell", fontsize=MEDIUM)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return image
