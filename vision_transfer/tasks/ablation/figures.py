"""Figures of an ablation: accuracy and calibration against depth, accuracy against cost, and blocks alone."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vision_transfer.runtime.files import replaced_file
from vision_transfer.tasks.ablation.pareto import pareto_front
from vision_transfer.tasks.ablation.points import Point, cut_name, series, short_name
from vision_transfer.tasks.study.figures import COLOURS, DASHES, MARKERS, PIXELS_PER_INCH
from vision_transfer.tasks.study.statistics import Summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEPTH, VALIDATION, CALIBRATION, COST, BLOCKS = (
    "depth.png",
    "validation.png",
    "calibration.png",
    "cost.png",
    "blocks.png",
)
# Points of neighbouring lines stand this far apart, in layers, so that intervals do not overlap.
SIDESTEP = 0.09
# Above this a cell of the heat map is so bright that dark letters are read better.
BRIGHT = 0.6


def draw_figures(found: Sequence[Point], folder: Path, title: str) -> list[Path]:
    """Writes the figures that the points allow; returns their files.

    Against depth only masks that are cuts are drawn, in the heat map only blocks that train alone. Validation has a
    figure of its own, since it says more than the test where the test split is tiny, and is said to be optimistic.
    """
    drawn: dict[str, Figure] = {}
    if any(point.mask.depth is not None for point in found):
        drawn[DEPTH] = depth_figure(found, lambda point: point.test, "test accuracy", title)
        validated = [replace(point, test=point.validation) for point in found if point.validation is not None]
        if len(validated) == len(found):
            drawn[VALIDATION] = depth_figure(
                validated, lambda point: point.test, "validation accuracy (epochs are chosen on it)", title
            )
        drawn[CALIBRATION] = depth_figure(
            found, lambda point: point.ece, "expected calibration error on the test split", title
        )
    drawn[COST] = cost_figure(found, title)
    if any(_is_alone(point) for point in found):
        drawn[BLOCKS] = blocks_figure(found, title)
    for name, figure in drawn.items():
        with replaced_file(folder / name) as temporary:
            figure.savefig(temporary, format="png", dpi=PIXELS_PER_INCH)
    return [folder / name for name in drawn]


def depth_figure(found: Sequence[Point], value: Callable[[Point], Summary], axis: str, title: str) -> "Figure":
    """A value with its 95 % t interval against the number of trainable layers, a line for each series."""
    figure, axes = _axes((8.0, 4.8))
    lines = series(found)
    names: dict[int, str] = {}
    for place, (label, line) in enumerate(lines.items()):
        cuts = {point.mask.depth: point for point in line if point.mask.depth is not None}
        own = [cuts[depth] for depth in sorted(cuts)]
        if not own:
            continue
        names |= {depth: cut_name(point.mask) for depth, point in cuts.items()}
        sidestep = SIDESTEP * (place - (len(lines) - 1) / 2)
        axes.errorbar(
            [point.mask.depth + sidestep for point in own if point.mask.depth is not None],
            [value(point).mean for point in own],
            yerr=np.transpose([value(point).reach for point in own]),
            linewidth=2,
            capsize=4,
            label=label,
            **_style(place),
        )
    axes.set_xticks(sorted(names), [names[depth] for depth in sorted(names)], rotation=35, ha="right")
    axes.set_xlabel("the backbone trains from this layer on")
    axes.set_ylabel(axis)
    axes.set_title(f"{title}: mean and 95 % t interval")
    if len(lines) > 1:
        axes.legend(frameon=False, fontsize=8)
    return figure


def cost_figure(found: Sequence[Point], title: str) -> "Figure":
    """Accuracy against trainable parameters and against seconds; the Pareto front of each series is drawn and named."""
    figure, (left, right) = _axes((11.0, 4.8), columns=2)
    panels: list[tuple[Any, Callable[[Point], float], str]] = [
        (left, lambda point: float(point.trainable), "trainable parameters"),
        (right, lambda point: point.seconds, "seconds of training, shared stages counted in full"),
    ]
    for axes, cost, label in panels:
        for place, (name, line) in enumerate(series(found).items()):
            costs, values = [cost(point) for point in line], [point.test.mean for point in line]
            style = _style(place)
            axes.plot(costs, values, **(style | {"linestyle": "none", "alpha": 0.45}), label=name)
            front = pareto_front(costs, values)
            axes.step(
                [costs[at] for at in front],
                [values[at] for at in front],
                where="post",
                **(style | {"markersize": 9, "linewidth": 1.5}),
            )
            for at in front:
                axes.annotate(
                    short_name(line[at].mask),
                    (costs[at], values[at]),
                    xytext=(5, 6),
                    textcoords="offset points",
                    fontsize=7,
                    color=style["color"],
                )
        axes.set_xscale("log")
        axes.margins(x=0.2, y=0.12)
        axes.set_xlabel(label)
        axes.set_ylabel("test accuracy (mean over seeds)")
    if len(series(found)) > 1:
        left.legend(frameon=False, fontsize=8, loc="lower right")
    figure.suptitle(f"{title}: large marks are the Pareto front")
    return figure


def blocks_figure(found: Sequence[Point], title: str) -> "Figure":
    """Mean accuracy of each block that trains alone (with the head), as a heat map with a row for each series."""
    rows = {name: {p.mask.block: p for p in line if _is_alone(p)} for name, line in series(found).items()}
    rows = {name: by_block for name, by_block in rows.items() if by_block}
    blocks = sorted({str(block) for by_block in rows.values() for block in by_block})
    values = np.array(
        [[by_block[block].test.mean if block in by_block else np.nan for block in blocks] for by_block in rows.values()]
    )
    figure, axes = _axes((2.4 + 1.1 * len(blocks), 1.9 + 0.5 * len(rows)))
    image = axes.imshow(values, cmap="viridis", aspect="auto")
    lowest, highest = np.nanmin(values), np.nanmax(values)
    for row, column in np.argwhere(np.isfinite(values)):
        share = (values[row, column] - lowest) / (highest - lowest) if highest > lowest else 0.0
        colour = "black" if share > BRIGHT else "white"
        axes.text(column, row, f"{values[row, column]:.3f}", ha="center", va="center", color=colour, fontsize=9)
    axes.set_xticks(range(len(blocks)), blocks)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.grid(visible=False)
    axes.set_xlabel("the block that trains, with the head")
    axes.set_title(title)
    figure.colorbar(image, ax=axes, label="test accuracy")
    return figure


def _axes(size: tuple[float, float], columns: int = 1) -> tuple["Figure", Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, columns)
    for one in np.atleast_1d(axes):
        one.grid(alpha=0.3)
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _style(place: int) -> dict[str, Any]:
    return {
        "color": COLOURS[place % len(COLOURS)],
        "marker": MARKERS[place % len(MARKERS)],
        "linestyle": DASHES[place % len(DASHES)],
        "markersize": 6,
    }


def _is_alone(point: Point) -> bool:
    return point.mask.spec.startswith("only:") and point.mask.block is not None
