"""Tables of a study: a row per run, and a row per group of repeated runs, as CSV, Markdown and on the screen.

A table is its header and rows of text; its first `labels` columns are names, the others numbers.
"""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from vision_transfer.runtime.files import replaced_file
from vision_transfer.tasks.study.plan import Label
from vision_transfer.tasks.study.runs import FinishedRun, over_seeds
from vision_transfer.tasks.study.statistics import Summary, summarised

Row = dict[str, Any]


@dataclass(frozen=True)
class Group:
    """Runs that differ only in the repeated label.

    Attributes:
        labels: what they share.
        test, validation: accuracies; validation is None if there was none.
        trainable: parameters that the last stage trained.
        seconds: mean time of a run.
    """

    labels: dict[str, Label]
    test: Summary
    validation: Summary | None
    trainable: int
    seconds: float


COLUMNS: dict[str, Callable[[Group], str]] = {
    "runs": lambda group: f"{group.test.count}",
    "test accuracy": lambda group: mean_text(group.test.mean, group.test.interval),
    "range": lambda group: f"{group.test.smallest:.4f}–{group.test.largest:.4f}",
    "validation": lambda group: "–" if group.validation is None else f"{group.validation.mean:.4f}",
    "trainable": lambda group: f"{group.trainable:,}",
    "seconds a run": lambda group: f"{group.seconds:,.0f}",
}
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


def grouped(finished: Sequence[FinishedRun], over: str) -> list[Group]:
    """The groups of runs that differ only in the label `over`, in the order of the plan."""
    groups = []
    for labels, runs in over_seeds(finished, over).items():
        test, validation = accuracies(runs)
        trainable = runs[0].result["parameters"]["trainable"]
        seconds = sum(one.result["seconds"]["total"] for one in runs) / len(runs)
        groups.append(Group(dict(labels), test, validation, trainable, seconds))
    return groups


def accuracies(runs: Sequence[FinishedRun]) -> tuple[Summary, Summary | None]:
    """Test and validation accuracies of repeated runs; None for validation if one of them has none."""
    validation = [one.result["tested"]["validation"]["accuracy"] for one in runs]
    test = summarised([one.result["test"]["accuracy"] for one in runs])
    return test, None if None in validation else summarised(validation)


def cells_of(groups: Sequence[Any], columns: Mapping[str, Callable[[Any], str]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of groups with `labels`: these, then the columns."""
    rows = [[*map(label_text, one.labels.values()), *(cell(one) for cell in columns.values())] for one in groups]
    return [*groups[0].labels, *columns], rows


def caption(over: str) -> str:
    """Explains the numbers of the table of the groups."""
    return (
        f"Test: mean over runs that differ only in {over} (95 % t interval of that mean), then the smallest and "
        "largest. All were tested on the same images."
    )


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Writes rows with the same keys as a CSV file with a header."""
    with replaced_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], labels: int, note: str) -> str:
    """A Markdown table, followed by a note."""
    rule = ["---"] * labels + ["---:"] * (len(header) - labels)
    lines = [f"| {' | '.join(cells)} |" for cells in (header, rule, *rows)]
    return "\n".join([*lines, "", note]) + "\n"


def screen_table(
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    labels: int,
    note: str | None = None,
    kept: Sequence[str] | None = None,
) -> Table:
    """A table for the screen, with a note below it; `kept` are the columns besides the labels, all if None."""
    shown = [place for place, name in enumerate(header) if place < labels or kept is None or name in kept]
    table = Table(title=escape(title), title_justify="left", caption=note, caption_justify="left")
    table.box, table.pad_edge = box.SIMPLE_HEAD, False
    for place in shown:
        table.add_column(header[place], justify="left" if place < labels else "right")
    for cells in rows:
        table.add_row(*(escape(cells[place]) for place in shown))
    return table


def mean_text(mean: float, interval: tuple[float, float] | None) -> str:
    """A mean with its interval in brackets, if there is one."""
    return f"{mean:.4f}" if interval is None else f"{mean:.4f} ({interval_text(interval)})"


def interval_text(interval: tuple[float, float]) -> str:
    """`0.9000 to 0.9500`."""
    return f"{interval[0]:.4f} to {interval[1]:.4f}"


def label_text(value: Label) -> str:
    """A label in a table."""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else value
