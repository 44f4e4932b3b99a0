"""All figures of `--mode=explain`, as functions from arrays to matplotlib figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Float, UInt8

from vision_transfer.data.images.resize import resize_bilinear
from vision_transfer.runtime.files import replaced_file
from vision_transfer.tasks.explain.activation_maximization import shown
from vision_transfer.tasks.explain.activations import standardised
from vision_transfer.tasks.explain.teaching import Kernel
from vision_transfer.tasks.figures import MEDIUM, new_figure, wrapped

# Matplotlib's maps of even lightness, which read in grey and to the colour-blind: for values from low to high, around
# zero, and for heat.
SEQUENTIAL, DIVERGING, HEAT_COLOURS = "viridis", "PuOr", "inferno"
CONSTANT_COLOUR = "#d9d9d9"
# Weight of the heat's colour where the heat is 1; where it is 0, the image is unchanged.
HEAT_STRENGTH = 0.75
SMALL = 8
# Channels in a row; layers with at most `MANY_CHANNELS` have half as many, drawn twice as large.
COLUMNS, MANY_CHANNELS = 16, 64
FILTER_COLUMNS = 8
# Kernels in a row, each above its response, and panels of operations in a row.
TEACHING_COLUMNS = 4
# Inches: of a page with a grid and of the margin around it, of an image with its title, of a kernel, of a panel.
PAGE_WIDTH, MARGIN = 11.0, 1.1
IMAGE_PANEL, TITLE = 4.0, 0.8
KERNEL_CELL, OPERATION_PANEL = 2.0, 3.6
# The label beside a colour bar needs this height.
LEAST_HEIGHT = 3.2
# An array with more rows or columns than this is drawn without its numbers.
MOST_NUMBERED = 12
# A number on a cell darker than this is written in white.
DARK = 0.45


def activations_figure(maps: Float[np.ndarray, "map_height map_width channels"], layer: str, image_name: str) -> Any:
    """All channels of a layer for one image, each on a scale of its own; constant channels are grey."""
    height, width, channels = maps.shape
    columns = min(COLUMNS if channels > MANY_CHANNELS else COLUMNS // 2, channels)
    cells = list(np.moveaxis(standardised(maps), -1, 0))
    figure = _grid_figure(channels, columns, height / width)
    axes = figure.subplots()
    drawn = _show_tiles(axes, cells, columns)
    constant = sum(bool(np.isnan(cell).all()) for cell in cells)
    note = f"; {constant} constant (grey)" if constant else ""
    title = f"{image_name}: {channels} channels of {layer}, {height} × {width} each{note}"
    axes.set_title(wrapped(title, figure.get_figwidth() - 2 * MARGIN), fontsize=MEDIUM)
    bar = figure.colorbar(drawn, ax=axes, shrink=min(1.0, 2 / figure.get_figheight()), aspect=10, ticks=[0, 0.5, 1])
    bar.ax.set_yticklabels(["mean − 2 sd", "mean", "mean + 2 sd"])
    bar.set_label("output (own scale each)", fontsize=MEDIUM)
    return figure


def filters_figure(
    images: Float[np.ndarray, "filters size size channels"], numbers: Sequence[int], layer: str, way: str
) -> Any:
    """The image that maximises each filter, each with its own mean and spread."""
    cells = [shown(image) for image in images]
    if cells[0].shape[-1] == 1:
        cells = [np.repeat(cell, 3, axis=-1) for cell in cells]
    columns = min(FILTER_COLUMNS, len(cells))
    figure = _grid_figure(len(cells), columns, 1.0)
    axes = figure.subplots()
    _show_tiles(axes, cells, columns, numbers, what="filter")
    title = f"images that maximise filters of {layer} (gradient ascent, {way})"
    axes.set_title(wrapped(title, figure.get_figwidth() - 2 * MARGIN), fontsize=MEDIUM)
    return figure


def heat_figure(
    image: UInt8[np.ndarray, "height width channels"],
    heat: Float[np.ndarray, "map_height map_width"],
    title: str,
    heat_title: str,
) -> Any:
    """An image, and the same with a heat map over it and the scale of the heat."""
    from matplotlib.cm import ScalarMappable

    height, width = image.shape[:2]
    page_height = np.clip(IMAGE_PANEL * height / width, LEAST_HEIGHT - TITLE, 2 * IMAGE_PANEL) + TITLE
    figure = new_figure(2 * IMAGE_PANEL + MARGIN, page_height)
    plain, hot = figure.subplots(1, 2)
    _show_image(plain, image, title, IMAGE_PANEL)
    _show_image(hot, superimpose(image, heat), heat_title, IMAGE_PANEL)
    bar = figure.colorbar(ScalarMappable(cmap=HEAT_COLOURS), ax=[plain, hot], shrink=0.8, ticks=[0, 0.5, 1])
    bar.set_label("share of the map's largest value", fontsize=MEDIUM)
    return figure


def superimpose(
    image: UInt8[np.ndarray, "height width channels"], heat: Float[np.ndarray, "map_height map_width"]
) -> UInt8[np.ndarray, "height width 3"]:
    """The image at its own size with a heat map in colours over it: the hotter, the less of the image is visible.

    The heat has values 0–1 and any size; it is stretched bilinearly over the whole image.
    """
    from matplotlib import colormaps

    height, width = image.shape[:2]
    stretched = np.clip(resize_bilinear(np.asarray(heat, np.float32)[..., None], height, width), 0, 1)
    colours = colormaps[HEAT_COLOURS](stretched[..., 0])[..., :3] * 255
    share = HEAT_STRENGTH * stretched
    mixed = image.astype(np.float32) * (1 - share) + colours * share
    return np.rint(mixed).astype(np.uint8)


def filter_bank_figure(
    image: UInt8[np.ndarray, "height width channels"],
    title: str,
    kernels: Sequence[Kernel],
    answers: Float[np.ndarray, "kernels height width"],
) -> Any:
    """The image, then each filter of a bank above its response; each on a scale of its own around 0."""
    columns = min(TEACHING_COLUMNS, len(kernels))
    rows = -(-len(kernels) // columns)
    figure = new_figure(KERNEL_CELL * columns + KERNEL_CELL + 1.5, 1.85 * KERNEL_CELL * rows + 0.6)
    left, right = cast(Any, figure.subfigures(1, 2, width_ratios=[1, columns]))
    beside = left.subplots()
    beside.set_anchor("N")
    _show_image(beside, image, title, KERNEL_CELL)
    grid = right.subplots(2 * rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    drawn: Any = None
    for number, (kernel, answer) in enumerate(zip(kernels, answers, strict=True)):
        row, column = 2 * (number // columns), number % columns
        drawn = _show_around_zero(grid[row, column], kernel.values)
        grid[row, column].set_title(kernel.name.replace(", ", "\n", 1), fontsize=SMALL)
        _show_around_zero(grid[row + 1, column], answer)
    bar = figure.colorbar(drawn, ax=list(grid.flat), shrink=0.5, ticks=[-1, 0, 1])
    bar.ax.set_yticklabels(["−max", "0", "+max"])
    bar.set_label("weight (above) and response (below)", fontsize=MEDIUM)
    return figure


def operations_figure(
    image: Float[np.ndarray, "height width"],
    kernel: Kernel,
    outputs: Mapping[str, Float[np.ndarray, "new_height new_width"]],
    title: str,
) -> Any:
    """The image, the kernel and the output of each operation, with the numbers in the cells where they fit."""
    panels = {title: image, f"kernel: {kernel.name}": kernel.values, **outputs}
    rows = -(-len(panels) // TEACHING_COLUMNS)
    figure = new_figure(OPERATION_PANEL * TEACHING_COLUMNS, (OPERATION_PANEL + 0.3) * rows)
    grid = list(figure.subplots(rows, TEACHING_COLUMNS, squeeze=False).flat)
    for axes, (name, values) in zip(grid[: len(panels)], panels.items(), strict=True):
        _show_numbers(axes, values, name)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    return figure


def save_image(image: UInt8[np.ndarray, "height width 3"], path: Path) -> Path:
    """Writes an image as PNG, pixel for pixel; returns the path."""
    from PIL import Image

    with replaced_file(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG")
    return path


def _grid_figure(cells: int, columns: int, aspect: float) -> Any:
    """An empty figure with room for a grid of cells of this height per width."""
    rows = -(-cells // columns)
    width = PAGE_WIDTH if columns > COLUMNS // 4 else PAGE_WIDTH / 2
    return new_figure(width, max(LEAST_HEIGHT, (width - 2 * MARGIN) / columns * rows * aspect + MARGIN))


def _show_image(axes: Any, image: UInt8[np.ndarray, "height width channels"], title: str, inches: float) -> None:
    axes.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255)
    axes.set_title(wrapped(title, inches), fontsize=MEDIUM)
    axes.set_axis_off()


def _show_tiles(
    axes: Any, cells: Sequence[np.ndarray], columns: int, numbers: Sequence[int] | None = None, what: str = "channel"
) -> Any:
    """Draws cells in a grid; returns matplotlib's image, for a colour bar.

    Cells have values 0–1, one size, and 2 dimensions for a colour map or 3 for RGB. Numbers that count from 0, as they
    do by default, are read off the grid's edges; others are written into the cells.
    """
    from matplotlib import colormaps

    height, width = cells[0].shape[:2]
    gap = max(1, round(max(height, width) / 24))
    page = tiled(cells, columns, gap)
    if page.ndim == 3:
        page = np.where(np.isnan(page), 1, page)
    colours = colormaps[SEQUENTIAL].with_extremes(bad=CONSTANT_COLOUR)
    drawn = axes.imshow(page, cmap=colours, vmin=0, vmax=1, interpolation="auto", aspect="equal")
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
        axes.set_xlabel(f"each cell shows the number of its {what}", fontsize=MEDIUM)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return drawn


def tiled(
    cells: Sequence[Float[np.ndarray, "height width *channels"]], columns: int, gap: int
) -> Float[np.ndarray, "rows_of_cells columns_of_cells *channels"]:
    """Cells of one size as one array, row after row, with NaN between them and after the last one."""
    height, width, *channels = cells[0].shape
    rows = -(-len(cells) // columns)
    page = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, *channels), np.nan, np.float32)
    for number, cell in enumerate(cells):
        top, left = number // columns * (height + gap), number % columns * (width + gap)
        page[top : top + height, left : left + width] = cell
    return page


def _show_around_zero(axes: Any, values: np.ndarray) -> Any:
    """Draws values on a scale from minus to plus their largest magnitude; returns matplotlib's image."""
    largest = float(np.abs(values).max()) or 1.0
    return axes.imshow(values / largest, cmap=DIVERGING, vmin=-1, vmax=1, interpolation="nearest")


def _show_numbers(axes: Any, values: np.ndarray, name: str) -> None:
    height, width = values.shape
    low, high = float(values.min()), float(values.max())
    if high == low:
        high = low + 1
    axes.imshow(values, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    axes.set_title(wrapped(f"{name}\n{height} × {width}", OPERATION_PANEL), fontsize=MEDIUM)
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
