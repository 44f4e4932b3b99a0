"""The tables of an ablation: a row per run as CSV, and a row per mask as Markdown, CSV and LaTeX."""

from collections.abc import Callable, Sequence
from pathlib import Path

from rich import box
from rich.markup import escape
from rich.table import Table

from vision_transfer.runtime.files import replaced_file
from vision_transfer.tasks.ablation.points import Point
from vision_transfer.tasks.study.measures import run_ece, run_seconds
from vision_transfer.tasks.study.plan import Label
from vision_transfer.tasks.study.runs import FinishedRun
from vision_transfer.tasks.study.statistics import Summary
from vision_transfer.tasks.study.tables import Row, run_rows, write_csv

RUNS, CSV, MARKDOWN, LATEX = "runs.csv", "table.csv", "table.md", "table.tex"
CAPTION = (
    "Test: mean over seeds (95 % t interval of that mean, cut off at 0 and 1). Wilson: 95 % interval of that mean for "
    "as many images as the test has. ECE: expected calibration error on the test split, mean over seeds. Seconds: "
    "training and validation of a run, the median over seeds; a shared stage counts in each run that has it, features "
    "do not."
)
# What LaTeX would read as a command.
LATEX_ESCAPES = str.maketrans({character: f"\\{character}" for character in "_%&#$"} | {"–": "--"})
# Of the cells behind the labels, those that fit on a narrow screen.
SCREEN_COLUMNS = ("test accuracy", "validation", "seconds")


def write_tables(finished: Sequence[FinishedRun], found: Sequence[Point], folder: Path) -> list[Path]:
    """Writes all four; returns their files."""
    runs = [
        row | {"test ece": run_ece(one), "training seconds": run_seconds(one)}
        for row, one in zip(run_rows(finished), (one for one in finished if one.run.compared), strict=True)
    ]
    write_csv(runs, folder / RUNS)
    write_csv([_numbers(point) for point in found], folder / CSV)
    for name, text in ((MARKDOWN, markdown(found)), (LATEX, latex(found))):
        with replaced_file(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return [folder / name for name in (RUNS, CSV, MARKDOWN, LATEX)]


def markdown(found: Sequence[Point]) -> str:
    """A Markdown table with a sentence that says what its numbers are."""
    header, rows = _cells(found)
    labels = len(found[0].labels)
    rule = ["---"] * labels + ["---:"] * (len(header) - labels)
    return "\n".join([*(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows)), "", CAPTION]) + "\n"


def latex(found: Sequence[Point]) -> str:
    """The same table for LaTeX, with the rules of the package booktabs."""
    header, rows = _cells(found)
    labels = len(found[0].labels)
    lines = [
        f"% {CAPTION}",
        f"\\begin{{tabular}}{{{'l' * labels}{'r' * (len(header) - labels)}}}",
        "\\toprule",
        _latex_row(header),
        "\\midrule",
        *map(_latex_row, rows),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def screen_table(found: Sequence[Point], title: str) -> Table:
    """What fits on a narrow screen."""
    header, rows = _cells(found)
    labels = len(found[0].labels)
    shown = [place for place, name in enumerate(header) if place < labels or name in SCREEN_COLUMNS]
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for place in shown:
        table.add_column(header[place], justify="left" if place < labels else "right")
    for cells in rows:
        table.add_row(*(escape(cells[place]) for place in shown))
    return table


def _numbers(point: Point) -> Row:
    low, high = point.test.interval or ("", "")
    return {
        **point.labels,
        "runs": point.test.count,
        "test accuracy": point.test.mean,
        "test ci95 low": low,
        "test ci95 high": high,
        "test images": point.test_images,
        "test wilson95 low": point.test_interval[0],
        "test wilson95 high": point.test_interval[1],
        "validation accuracy": "" if point.validation is None else point.validation.mean,
        "test ece": point.ece.mean,
        "trainable parameters": point.trainable,
        "training seconds": point.seconds,
    }


COLUMNS: dict[str, Callable[[Point], str]] = {
    "runs": lambda point: f"{point.test.count}",
    "test accuracy": lambda point: _mean(point.test),
    "Wilson": lambda point: _interval(point.test_interval),
    "validation": lambda point: "–" if point.validation is None else f"{point.validation.mean:.4f}",
    "ECE": lambda point: f"{point.ece.mean:.4f}",
    "trainable": lambda point: f"{point.trainable:,}",
    "seconds": lambda point: f"{point.seconds:,.0f}",
}


def _cells(found: Sequence[Point]) -> tuple[list[str], list[list[str]]]:
    header = [*found[0].labels, *COLUMNS]
    return header, [
        [*map(_label, point.labels.values()), *(cell(point) for cell in COLUMNS.values())] for point in found
    ]


def _mean(summary: Summary) -> str:
    interval = summary.share_interval
    return f"{summary.mean:.4f}" if interval is None else f"{summary.mean:.4f} ({_interval(interval)})"


def _interval(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.4f} to {interval[1]:.4f}"


def _label(value: Label) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else value


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cell.translate(LATEX_ESCAPES) for cell in cells) + r" \\"
