"""The finished runs of an ablation as points of its tables and figures: accuracy and cost of a mask over its seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from vision_transfer.metrics.classification import wilson_interval
from vision_transfer.models.network import Network
from vision_transfer.tasks.ablation.grid import MASK
from vision_transfer.tasks.ablation.masks import MaskFacts, mask_facts
from vision_transfer.tasks.study.mask_runs import run_ece, run_seconds
from vision_transfer.tasks.study.plan import SEED, SIZE, Label
from vision_transfer.tasks.study.runs import FinishedRun, over_seeds
from vision_transfer.tasks.study.statistics import Summary, summarised
from vision_transfer.tasks.study.tables import accuracies


@dataclass(frozen=True)
class Point:
    """Runs that differ only in the seed.

    Attributes:
        labels: what they share.
        mask: that they train with.
        test, validation: accuracies; validation is None if there was none.
        ece: expected calibration errors on the test split.
        seconds: of training and validation in all stages, a shared stage counted in each run that has it; the median,
            which a single run on a busy machine does not shift.
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
    def test_interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the mean test accuracy, for the test images: more seeds are not more images."""
        return wilson_interval(round(self.test.mean * self.test_images), self.test_images)

    @property
    def series(self) -> tuple[tuple[str, Label], ...]:
        """The labels besides the mask: size of the training set, rate, schedule."""
        return tuple((name, value) for name, value in self.labels.items() if name != MASK)


def points(finished: Sequence[FinishedRun], network: Network) -> list[Point]:
    """A point for each group of runs that differ only in the seed, in the order of the plan."""
    return [
        Point(
            dict(labels),
            mask_facts(str(dict(labels)[MASK]), network),
            *accuracies(runs),
            summarised([run_ece(one) for one in runs]),
            median(run_seconds(one) for one in runs),
            runs[0].result["test"]["examples"],
        )
        for labels, runs in over_seeds(finished, SEED).items()
    ]


def series(found: Sequence[Point]) -> dict[str, list[Point]]:
    """Points with the same labels besides the mask, by a name of these; the head alone is in each series of its size.

    It has only one rate and schedule, and is where all lines of its size begin.
    """
    with_backbone = dict.fromkeys(point.series for point in found if point.mask.layers)
    lines = {}
    for labels in with_backbone or dict.fromkeys(point.series for point in found):
        size = dict(labels)[SIZE]
        lines[", ".join(_words(*label) for label in labels)] = [
            point for point in found if point.series == labels or (not point.mask.layers and point.labels[SIZE] == size)
        ]
    return lines


def _words(name: str, value: Label) -> str:
    if name == SIZE:
        return f"{value:,} images"
    return f"{name} {value:g}" if isinstance(value, float) else str(value).replace("_", " ")
