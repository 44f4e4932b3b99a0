"""Tables of a study: a row per run, and a row per group of repeated runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import mean, median

from vision_transfer.metrics.classification import wilson_interval
from vision_transfer.tasks.study.plan import SEED, Label
from vision_transfer.tasks.study.runs import FinishedRun
from vision_transfer.tasks.study.statistics import Summary, summarised
from vision_transfer.tasks.tables import Row, mean_text


@dataclass(frozen=True)
class Group:
    """Runs that differ only in the seed, with the labels that they share."""

    labels: dict[str, Label]
    runs: list[FinishedRun]

    @cached_property
    def test(self) -> Summary:
        """Test accuracies."""
        return summarised([one.result["test"]["accuracy"] for one in self.runs])

    @cached_property
    def validation(self) -> Summary | None:
        """Validation accuracies of the parameters that were tested; None if one of the runs has none."""
        found = [one.result["tested"]["validation"]["accuracy"] for one in self.runs]
        return None if None in found else summarised(found)

    @cached_property
    def ece(self) -> Summary:
        """Expected calibration errors on the test split."""
        return summarised([one.ece for one in self.runs])

    @property
    def backbone(self) -> str:
        """The backbone of the runs."""
        return self.runs[0].run.config.model.backbone

    @property
    def test_images(self) -> int:
        """The number of images that each run was tested on."""
        return self.runs[0].result["test"]["examples"]

    @property
    def test_interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the mean test accuracy, for the test images: more seeds are not more images."""
        return wilson_interval(round(self.test.mean * self.test_images), self.test_images)

    @property
    def trainable(self) -> int:
        """Parameters that the last stage trained."""
        return self.runs[0].result["parameters"]["trainable"]

    @property
    def seconds(self) -> float:
        """Mean time of a whole run."""
        return mean(one.result["seconds"]["total"] for one in self.runs)

    @property
    def training_seconds(self) -> float:
        """Median of the runs, which a single run on a busy machine does not shift."""
        return median(one.training_seconds for one in self.runs)


COLUMNS: dict[str, Callable[[Group], str]] = {
    "runs": lambda group: f"{group.test.count}",
    "test accuracy": lambda group: mean_text(group.test.mean, group.test.share_interval),
    "range": lambda group: f"{group.test.smallest:.4f}–{group.test.largest:.4f}",
    "validation": lambda group: "–" if group.validation is None else f"{group.validation.mean:.4f}",
    "trainable": lambda group: f"{group.trainable:,}",
    "seconds a run": lambda group: f"{group.seconds:,.0f}",
}
CAPTION = (
    "Test: mean over runs that differ only in seed (95 % t interval of that mean, cut off at 0 and 1), then the "
    "smallest and largest. All were tested on the same images."
)
# Columns besides the labels that fit on a narrow screen.
SCREEN_COLUMNS = ("runs", "test accuracy")


def run_rows(finished: Sequence[FinishedRun]) -> list[Row]:
    """A row per compared run: its labels, accuracies with the test's Wilson interval, and its folder."""
    return [
        {
            **one.run.labels,
            "validation accuracy": one.result["tested"]["validation"]["accuracy"],
            "test accuracy": one.result["test"]["accuracy"],
            "test ci95 low": one.result["test"]["accuracy_ci95"][0],
            "test ci95 high": one.result["test"]["accuracy_ci95"][1],
            "test images": one.result["test"]["examples"],
            "trainable parameters": one.result["parameters"]["trainable"],
            "seconds": one.result["seconds"]["total"],
            "folder": str(one.folder),
        }
        for one in finished
        if one.run.compared
    ]


def grouped(finished: Sequence[FinishedRun]) -> list[Group]:
    """The compared runs that differ only in the seed, in the order of the plan."""
    groups: dict[tuple[tuple[str, Label], ...], list[FinishedRun]] = {}
    for one in finished:
        if one.run.compared:
            shared = tuple((name, value) for name, value in one.run.labels.items() if name != SEED)
            groups.setdefault(shared, []).append(one)
    return [Group(dict(labels), runs) for labels, runs in groups.items()]


def cells_of(
    groups: Sequence[Group], columns: Mapping[str, Callable[[Group], str]]
) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of groups: their labels, then the columns."""
    rows = [[*map(label_text, one.labels.values()), *(cell(one) for cell in columns.values())] for one in groups]
    return [*groups[0].labels, *columns], rows


def label_text(value: Label) -> str:
    """A label in a table."""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else value
