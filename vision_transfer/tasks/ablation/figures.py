"""Figures of an ablation: accuracy and calibration against depth, accuracy against cost, and single blocks."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vision_transfer.models.network import Network
from vision_transfer.tasks.ablation.grid import MASK, MULTIPLIERS, RATE, SCHEDULE, network_name
from vision_transfer.tasks.ablation.masks import MaskFacts, mask_facts
from vision_transfer.tasks.figures import drawable, line_style, new_axes, save_png
from vision_transfer.tasks.study.figures import draw_summaries, drawn_values
from vision_transfer.tasks.study.plan import STATISTICS, Label, label_words
from vision_transfer.tasks.study.statistics import Summary, pareto_front
from vision_transfer.tasks.study.tables import Group

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEPTH, VALIDATION, CALIBRATION, COST, BLOCKS = (
    "depth.png",
    "validation.png",
    "calibration.png",
    "cost.png",
    "blocks.png",
)
# On brighter cells of the heat map dark text is easier to read.
BRIGHT = 0.6
# Labels in which runs of the head alone do not differ.
NOT_OF_HEADS = (SCHEDULE, RATE, MULTIPLIERS, STATISTICS)
# Neighbouring lines are shifted by this many layers, so that their intervals do not overlap.
SHIFT = 0.09
# A mask with its runs over the seeds.
Point = tuple[MaskFacts, Group]


def draw_figures(found: Sequence[Point], folder: Path, title: str) -> list[Path]:
    """Writes the figures that the points allow; returns their files.

    Depth figures show only masks that are cuts, the heat map only blocks that train alone. Validation has a figure of
    its own, since it is more precise than the test where the test split is tiny; its axis marks it as optimistic. Depth
    is not comparable between networks: each of several has its figures in a folder of its own, and one figure shows
    the cost of all.
    """
    by_backbone: dict[str, list[Point]] = {}
    for mask, group in found:
        by_backbone.setdefault(group.backbone, []).append((mask, group))
    if len(by_backbone) == 1:
        return _draw(found, folder, f"{title} of {found[0][1].backbone}")
    files = [save_png(cost_figure(found, title), folder / COST)]
    for name, own in by_backbone.items():
        (folder / name).mkdir(exist_ok=True)
        files += _draw(own, folder / name, f"{title} of {name}")
    return files


def _draw(found: Sequence[Point], folder: Path, title: str) -> list[Path]:
    drawn: dict[str, Figure] = {}
    if any(mask.depth is not None for mask, _ in found):
        depth_figures: dict[str, tuple[Callable[[Group], Summary | None], str]] = {
            DEPTH: (lambda group: group.test, "test accuracy"),
            VALIDATION: (lambda group: group.validation, "validation accuracy (epochs are chosen on it)"),
            CALIBRATION: (lambda group: group.ece, "expected calibration error on the test split"),
        }
        for name, (value, axis) in depth_figures.items():
            if all(value(group) is not None for _, group in found):
                drawn[name] = depth_figure(found, value, axis, title)
    drawn[COST] = cost_figure(found, title)
    if any(mask.is_one_block for mask, _ in found):
        drawn[BLOCKS] = blocks_figure(found, title)
    return [save_png(figure, folder / name) for name, figure in drawn.items()]


def points(groups: Sequence[Group], networks: Mapping[str, Network]) -> list[Point]:
    """The groups with the facts of their masks; `networks` are by `network_name`."""
    own = [networks[network_name(group.runs[0].run.config)] for group in groups]
    return [(mask_facts(str(group.labels[MASK]), network), group) for network, group in zip(own, groups, strict=True)]


def series(found: Sequence[Point]) -> dict[str, list[Point]]:
    """Points with the same labels besides the mask, by a name of these.

    The head alone has only one rate, schedule and kind of statistics, and is where all lines with the same other labels
    begin.
    """
    with_backbone = [_rest(group) for mask, group in found if mask.layers]
    lines = {}
    for labels in dict.fromkeys(with_backbone or [_rest(group) for _, group in found]):
        lines[", ".join(label_words(*label).replace("_", " ") for label in labels)] = [
            (mask, group) for mask, group in found if _belongs(mask, group, dict(labels))
        ]
    return lines


def _belongs(mask: MaskFacts, group: Group, line: Mapping[str, Label]) -> bool:
    """Whether a group is on the line with these labels."""
    free = () if mask.layers else NOT_OF_HEADS
    return all(group.labels[name] == value for name, value in line.items() if name not in free)


def _rest(group: Group) -> tuple[tuple[str, Label], ...]:
    """The labels besides the mask: size of the training set, rate, schedule."""
    return tuple((name, value) for name, value in group.labels.items() if name != MASK)


def depth_figure(found: Sequence[Point], value: Callable[[Group], Summary | None], axis: str, title: str) -> "Figure":
    """A value against the number of trainable layers, with its 95 % t interval over seeds; a line for each series."""
    figure, axes = new_axes(8.0, 4.8)
    lines = series(found)
    names: dict[int, str] = {}
    drawn: list[Summary] = []
    for number, (label, line) in enumerate(lines.items()):
        cuts = [(mask.depth, mask.cut_name, value(group)) for mask, group in line if mask.depth is not None]
        summaries = {depth: summary for depth, _, summary in cuts if summary is not None}
        if summaries:
            names |= {depth: name for depth, name, _ in cuts}
            depths, shift = sorted(summaries), SHIFT * (number - (len(lines) - 1) / 2)
            shifted = [depth + shift for depth in depths]
            draw_summaries(axes, shifted, [summaries[depth] for depth in depths], number, label)
            drawn += summaries.values()
    axes.set_xticks(sorted(names), [drawable(names[depth]) for depth in sorted(names)], rotation=35, ha="right")
    axes.set_xlabel("the backbone trains from this layer on")
    axes.set_ylabel(axis)
    axes.set_title(f"{title}: {drawn_values(drawn)}")
    if len(lines) > 1:
        axes.legend(frameon=False, fontsize=8)
    return figure


def cost_figure(found: Sequence[Point], title: str) -> "Figure":
    """Accuracy against trainable parameters and against seconds, with the Pareto front of each series and its names."""
    from matplotlib.ticker import LogFormatter

    figure, (left, right) = new_axes(11.0, 4.8, columns=2)
    lines = series(found)
    panels: list[tuple[Any, Callable[[MaskFacts, Group], float], str]] = [
        (left, lambda mask, _: mask.trainable, "trainable parameters"),
        (right, lambda _, group: group.training_seconds, "seconds of training, shared stages counted in full"),
    ]
    for axes, cost, label in panels:
        for number, (name, line) in enumerate(lines.items()):
            costs, values = [cost(*point) for point in line], [group.test.mean for _, group in line]
            style = line_style(number)
            axes.plot(costs, values, **(style | {"linestyle": "none", "alpha": 0.45}), label=name)
            front = pareto_front(costs, values)
            axes.step(
                [costs[place] for place in front],
                [values[place] for place in front],
                where="post",
                **(style | {"markersize": 9, "linewidth": 1.5}),
            )
            for place in front:
                axes.annotate(
                    line[place][0].short_name,
                    (costs[place], values[place]),
                    xytext=(5, 6),
                    textcoords="offset points",
                    fontsize=7,
                    color=style["color"],
                )
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(LogFormatter())
        axes.xaxis.set_minor_formatter(LogFormatter())
        axes.margins(x=0.2, y=0.12)
        axes.set_xlabel(label)
        axes.set_ylabel("test accuracy (mean over seeds)")
    if len(lines) > 1:
        left.legend(frameon=False, fontsize=8, loc="lower right")
    figure.suptitle(f"{title}: large marks are the Pareto front")
    return figure


def blocks_figure(found: Sequence[Point], title: str) -> "Figure":
    """Mean accuracy of each block that trains alone (with the head), as a heat map with a row for each series."""
    rows = {
        name: {str(mask.block): group.test.mean for mask, group in line if mask.is_one_block}
        for name, line in series(found).items()
    }
    rows = {name: accuracies for name, accuracies in rows.items() if accuracies}
    blocks = sorted(set().union(*rows.values()), key=_numbered)
    values = np.array([[accuracies.get(block, np.nan) for block in blocks] for accuracies in rows.values()])
    figure, axes = new_axes(2.4 + 1.1 * len(blocks), 1.9 + 0.5 * len(rows))
    image = axes.imshow(values, cmap="viridis", aspect="auto")
    lowest, highest = np.nanmin(values), np.nanmax(values)
    for row, column in np.argwhere(np.isfinite(values)):
        share = (values[row, column] - lowest) / (highest - lowest) if highest > lowest else 0.0
        colour = "black" if share > BRIGHT else "white"
        axes.text(column, row, f"{values[row, column]:.3f}", ha="center", va="center", color=colour, fontsize=9)
    axes.set_xticks(range(len(blocks)), list(map(drawable, blocks)))
    axes.set_yticks(range(len(rows)), list(map(drawable, rows)))
    axes.grid(visible=False)
    axes.set_xlabel("the block that trains, with the head")
    axes.set_title(title)
    figure.colorbar(image, ax=axes, label="test accuracy")
    return figure


def _numbered(name: str) -> list[tuple[int, str]]:
    """A key that sorts block2 before block10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]
