"""Figures of what a network sees: activations, what filters look for, heat maps."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from vision_transfer.tasks.explain.activation_maximization import shown
from vision_transfer.tasks.explain.activations import standardised
from vision_transfer.tasks.explain.figures import MEDIUM, new_figure, show_picture, show_tiles, wrapped
from vision_transfer.tasks.explain.overlay import HEAT_COLOURS, superimpose

COLUMNS = 16
# Fewer channels are drawn twice as large.
MANY_CHANNELS = 64
FILTER_COLUMNS = 8
# Inches: of a page, and of what stands around a grid.
PAGE_WIDTH, MARGIN = 11.0, 1.1
PANEL = 4.0
TITLE = 0.8
# Less has no room for the words beside a colour bar.
LEAST_HEIGHT = 3.2


def activations_figure(maps: Float[np.ndarray, "map_height map_width channels"], layer: str, picture: str) -> Any:
    """All channels of a layer for one picture, each on a scale of its own; channels that say nothing are grey."""
    height, width, channels = maps.shape
    columns = min(COLUMNS if channels > MANY_CHANNELS else COLUMNS // 2, channels)
    cells = list(np.moveaxis(standardised(maps), -1, 0))
    figure = _grid_figure(channels, columns, height / width)
    axes = figure.subplots()
    image = show_tiles(axes, cells, columns)
    silent = sum(bool(np.isnan(cell).all()) for cell in cells)
    note = f"; {silent} say the same everywhere (grey)" if silent else ""
    title = f"{picture}: {channels} channels of {layer}, {height} × {width} each{note}"
    axes.set_title(wrapped(title, figure.get_figwidth() - 2 * MARGIN), fontsize=MEDIUM)
    bar = figure.colorbar(image, ax=axes, shrink=min(1.0, 2 / figure.get_figheight()), aspect=10, ticks=[0, 0.5, 1])
    bar.ax.set_yticklabels(["mean − 2 sd", "mean", "mean + 2 sd"])
    bar.set_label("output (own scale each)", fontsize=MEDIUM)
    return figure


def filters_figure(
    images: Float[np.ndarray, "filters size size channels"], numbers: Sequence[int], layer: str, way: str
) -> Any:
    """What each filter looks for, each image with its own mean and spread."""
    cells = [shown(image) for image in images]
    if cells[0].shape[-1] == 1:
        cells = [np.repeat(cell, 3, axis=-1) for cell in cells]
    columns = min(FILTER_COLUMNS, len(cells))
    figure = _grid_figure(len(cells), columns, 1.0)
    axes = figure.subplots()
    show_tiles(axes, cells, columns, numbers, what="filter")
    title = f"what filters of {layer} look for (gradient ascent, {way})"
    axes.set_title(wrapped(title, figure.get_figwidth() - 2 * MARGIN), fontsize=MEDIUM)
    return figure


def heat_figure(
    picture: UInt8[np.ndarray, "height width channels"],
    heat: Float[np.ndarray, "map_height map_width"],
    title: str,
    heat_title: str,
) -> Any:
    """A picture, and a heat map laid over it, with the scale of the heat."""
    from matplotlib.cm import ScalarMappable

    height, width = picture.shape[:2]
    figure = new_figure(2 * PANEL + MARGIN, np.clip(PANEL * height / width, LEAST_HEIGHT - TITLE, 2 * PANEL) + TITLE)
    plain, hot = figure.subplots(1, 2)
    show_picture(plain, picture, title, PANEL)
    show_picture(hot, superimpose(picture, heat), heat_title, PANEL)
    bar = figure.colorbar(ScalarMappable(cmap=HEAT_COLOURS), ax=[plain, hot], shrink=0.8, ticks=[0, 0.5, 1])
    bar.set_label("share of the map's largest value", fontsize=MEDIUM)
    return figure


def _grid_figure(cells: int, columns: int, aspect: float) -> Any:
    """A page on which so many cells of this height per width have room."""
    rows = -(-cells // columns)
    width = PAGE_WIDTH if columns > COLUMNS // 4 else PAGE_WIDTH / 2
    return new_figure(width, max(LEAST_HEIGHT, (width - 2 * MARGIN) / columns * rows * aspect + MARGIN))
