"""The finished runs of an ablation as points: what a mask reaches, and what it costs, over its seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from vision_transfer.metrics.classification import wilson_interval
from vision_transfer.models.network import Network
from vision_transfer.tasks.ablation.grid import MASK, SEED, SIZE
from vision_transfer.tasks.ablation.masks import EVERYTHING, MaskFacts, mask_facts
from vision_transfer.tasks.study.measures import run_ece, run_seconds
from vision_transfer.tasks.study.plan import Label
from vision_transfer.tasks.study.runs import FinishedRun
from vision_transfer.tasks.study.statistics import Summary, summarised


@dataclass(frozen=True)
class Point:
    """The runs that differ in the seed alone.

    Attributes:
        labels: what they have in common.
        mask: that they train under.
        runs: their number.
        test, validation: accuracies; validation is None where there was none.
        ece: expected calibration errors on the test split.
        seconds: of training and validation in all stages, a shared stage counted in each run that has it; the median,
            which one run on a busy machine does not move.
        test_images: that each run was tested on.
    """

    labels: dict[str, Label]
    mask: MaskFacts
    test: Summary
    validation: Summary | None
    ece: Summary
    seconds: float
    test_images: int

    @property
    def trainable(self) -> int:
        """Parameters that train, with the head's."""
        return self.mask.trainable

    @property
    def test_interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the mean test accuracy for as many images as the test has."""
        return wilson_interval(round(self.test.mean * self.test_images), self.test_images)

    @property
    def series(self) -> tuple[tuple[str, Label], ...]:
        """What else than the mask tells the point from others: size of the training set, rate, schedule."""
        return tuple((name, value) for name, value in self.labels.items() if name != MASK)


def points(finished: Sequence[FinishedRun], network: Network) -> list[Point]:
    """A point for each group of runs that differ in the seed alone, in the order of the plan."""
    return [_point(dict(labels), runs, network) for labels, runs in over_seeds(finished).items()]


def over_seeds(finished: Sequence[FinishedRun]) -> dict[tuple[tuple[str, Label], ...], list[FinishedRun]]:
    """Runs that differ in the seed alone, by the labels that they have in common, in the order of the plan."""
    members: dict[tuple[tuple[str, Label], ...], list[FinishedRun]] = {}
    for one in finished:
        labels = tuple((name, value) for name, value in one.run.labels.items() if name != SEED)
        members.setdefault(labels, []).append(one)
    return members


def seconds_per_flop(finished: Sequence[FinishedRun], flops_by_run: Mapping[str, int]) -> float:
    """The pace of finished runs; medians over seeds, which one run on a busy machine does not move.

    Args:
        finished: one or more.
        flops_by_run: what each of them takes, by name.
    """
    groups = over_seeds(finished).values()
    seconds = sum(median(run_seconds(one) for one in runs) for runs in groups)
    return seconds / max(1, sum(flops_by_run[runs[0].run.name] for runs in groups))


def _point(labels: dict[str, Label], runs: Sequence[FinishedRun], network: Network) -> Point:
    validation = [one.result["tested"]["validation"]["accuracy"] for one in runs]
    return Point(
        labels,
        mask_facts(str(labels[MASK]), network),
        summarised([one.result["test"]["accuracy"] for one in runs]),
        None if None in validation else summarised(validation),
        summarised([run_ece(one) for one in runs]),
        median([run_seconds(one) for one in runs]),
        runs[0].result["test"]["examples"],
    )


def series(found: Sequence[Point]) -> dict[str, list[Point]]:
    """The points by what tells them apart besides the mask; those of the head alone stand in each series of their size.

    The head alone has one rate and schedule only, and is where all lines of its size begin.
    """
    with_backbone = dict.fromkeys(point.series for point in found if point.mask.layers)
    if not with_backbone:
        with_backbone = dict.fromkeys(point.series for point in found)
    lines = {}
    for values in with_backbone:
        size = dict(values)[SIZE]
        lines[_series_name(values)] = [
            point for point in found if point.series == values or (not point.mask.layers and point.labels[SIZE] == size)
        ]
    return lines


def cut_name(mask: MaskFacts) -> str:
    """A mask that is a cut by the layer from which on all trains."""
    if not mask.layers:
        return "head only"
    return "everything" if mask.spec == EVERYTHING else mask.layers[0]


def short_name(mask: MaskFacts) -> str:
    """A mask for a figure: the layer from which on all trains, the block that trains alone, else its spec."""
    if mask.spec.startswith("only:") and mask.block is not None:
        return f"{mask.block} alone"
    return mask.spec if mask.depth is None else cut_name(mask)


def _series_name(values: Sequence[tuple[str, Label]]) -> str:
    parts = []
    for name, value in values:
        if name == SIZE:
            parts.append(f"{value:,} images")
        else:
            parts.append(f"{name} {value:g}" if isinstance(value, float) else str(value).replace("_", " "))
    return ", ".join(parts)
