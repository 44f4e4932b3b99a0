"""The results of a study as tables: a row per run, and a row per group of repeated runs; CSV, Markdown and screen."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from vision_transfer.runtime.files import replaced_file
from vision_transfer.tasks.study.plan import Label, Study
from vision_transfer.tasks.study.runs import FinishedRun
from vision_transfer.tasks.study.statistics import Summary, summarised

Row = dict[str, Any]
# Behind the labels: the number of runs, and the test with its interval.
SCREEN_COLUMNS = 2


@dataclass(frozen=True)
class Group:
    """Runs that differ in the repeated label alone.

    Attributes:
        labels: what they have in common.
        test, validation: their accuracies; validation is None where there was none.
        trainable: parameters that the last stage trained.
        seconds: mean time of a run.
    """

    labels: dict[str, Label]
    test: Summary
    validation: Summary | None
    trainable: int
    seconds: float


def run_rows(finished: Sequence[FinishedRun]) -> list[Row]:
    """A row per compared run: its labels, accuracies with the test's Wilson interval, and where it is."""
    rows = []
    for one in finished:
        if not one.run.compared:
            continue
        result, test = one.result, one.result["test"]
        rows.append(
            {
                **one.run.labels,
                "validation accuracy": result["tested"]["validation"]["accuracy"],
                "test accuracy": test["accuracy"],
                "test ci95 low": test["accuracy_ci95"][0],
                "test ci95 high": test["accuracy_ci95"][1],
                "test images": test["examples"],
                "trainable parameters": result["parameters"]["trainable"],
                "seconds": result["seconds"]["total"],
                "folder": str(one.folder),
            }
        )
    return rows


def grouped(study: Study, finished: Sequence[FinishedRun]) -> list[Group]:
    """The groups in the order of the plan."""
    members: dict[tuple[Label, ...], list[Row]] = {}
    for row in run_rows(finished):
        members.setdefault(tuple(row[label] for label in study.group_by), []).append(row)
    groups = []
    for values, rows in members.items():
        validation = [row["validation accuracy"] for row in rows]
        groups.append(
            Group(
                dict(zip(study.group_by, values, strict=True)),
                summarised([row["test accuracy"] for row in rows]),
                None if None in validation else summarised(validation),
                rows[0]["trainable parameters"],
                sum(row["seconds"] for row in rows) / len(rows),
            )
        )
    return groups


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Rows with the same keys as a CSV file with a header."""
    with replaced_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def markdown_table(study: Study, groups: Sequence[Group]) -> str:
    """The groups as a Markdown table with a sentence that says what its numbers are."""
    header, rows = _cells(study, groups)
    labels = len(study.group_by)
    rule = ["---"] * labels + ["---:"] * (len(header) - labels)
    lines = [f"| {' | '.join(cells)} |" for cells in (header, rule, *rows)]
    return "\n".join([*lines, "", caption(study)]) + "\n"


def screen_table(study: Study, groups: Sequence[Group]) -> Table:
    """What fits on a narrow screen of the same: the labels and the test."""
    header, rows = _cells(study, groups)
    shown = len(study.group_by) + SCREEN_COLUMNS
    table = Table(title=escape(study.name), title_justify="left", caption=caption(study), caption_justify="left")
    table.box, table.pad_edge = box.SIMPLE_HEAD, False
    for place, name in enumerate(header[:shown]):
        table.add_column(name, justify="left" if place < len(study.group_by) else "right")
    for cells in rows:
        table.add_row(*map(escape, cells[:shown]))
    return table


def caption(study: Study) -> str:
    """What the numbers of the table are."""
    return (
        f"Test: mean over runs that differ in {study.over} alone (95 % t interval of that mean), then the smallest and "
        "largest. All were tested on the same images."
    )


def _cells(study: Study, groups: Sequence[Group]) -> tuple[list[str], list[list[str]]]:
    header = [*study.group_by, "runs", "test accuracy", "range", "validation", "trainable", "seconds a run"]
    rows = []
    for group in groups:
        rows.append(
            [
                *(_label(value) for value in group.labels.values()),
                f"{group.test.count}",
                _mean(group.test),
                f"{group.test.smallest:.4f}–{group.test.largest:.4f}",
                "–" if group.validation is None else f"{group.validation.mean:.4f}",
                f"{group.trainable:,}",
                f"{group.seconds:,.0f}",
            ]
        )
    return header, rows


def _mean(summary: Summary) -> str:
    if summary.interval is None:
        return f"{summary.mean:.4f}"
    return f"{summary.mean:.4f} ({summary.interval[0]:.4f} to {summary.interval[1]:.4f})"


def _label(value: Label) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
