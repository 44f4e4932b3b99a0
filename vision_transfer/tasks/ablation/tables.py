"""The tables of an ablation: a row per run as CSV, and a row per mask as CSV, Markdown and LaTeX; its conclusions."""

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.table import Table

from vision_transfer.runtime.files import replaced_file
from vision_transfer.tasks.ablation.points import Point
from vision_transfer.tasks.study import tables as study_tables
from vision_transfer.tasks.study.mask_runs import run_ece, run_seconds
from vision_transfer.tasks.study.runs import FinishedRun
from vision_transfer.tasks.study.tables import Row, cells_of, interval_text, mean_text, run_rows, write_csv

RUNS, CSV, MARKDOWN, LATEX, CONCLUSIONS = "runs.csv", "table.csv", "table.md", "table.tex", "conclusions.md"
CAPTION = (
    "Test: mean over seeds (95 % t interval of that mean, cut off at 0 and 1). Wilson: 95 % interval of that mean for "
    "the number of test images. ECE: expected calibration error on the test split, mean over seeds. Seconds: training "
    "and validation of a run, median over seeds; a shared stage counts in each run that has it, computing features "
    "does not."
)
# Characters that LaTeX would read as commands.
LATEX_ESCAPES = str.maketrans({character: f"\\{character}" for character in "_%&#$"} | {"–": "--"})
COLUMNS: dict[str, Callable[[Point], str]] = {
    "runs": lambda point: f"{point.test.count}",
    "test accuracy": lambda point: mean_text(point.test.mean, point.test.share_interval),
    "Wilson": lambda point: interval_text(point.test_interval),
    "validation": lambda point: "–" if point.validation is None else f"{point.validation.mean:.4f}",
    "ECE": lambda point: f"{point.ece.mean:.4f}",
    "trainable": lambda point: f"{point.mask.trainable:,}",
    "seconds": lambda point: f"{point.seconds:,.0f}",
}
# Columns besides the labels that fit on a narrow screen.
SCREEN_COLUMNS = ("test accuracy", "validation", "seconds")


def write_tables(
    finished: Sequence[FinishedRun], found: Sequence[Point], conclusions: Sequence[Sequence[str]], folder: Path
) -> list[Path]:
    """Writes all tables, and the paragraphs of conclusions as Markdown lists; returns the files."""
    extra = [{"test ece": run_ece(one), "training seconds": run_seconds(one)} for one in finished]
    write_csv([row | more for row, more in zip(run_rows(finished), extra, strict=True)], folder / RUNS)
    write_csv([_numbers(point) for point in found], folder / CSV)
    paragraphs = ("\n".join(f"- {sentence}" for sentence in paragraph) for paragraph in conclusions)
    texts = {MARKDOWN: markdown(found), LATEX: latex(found), CONCLUSIONS: "\n\n".join(paragraphs) + "\n"}
    for name, text in texts.items():
        with replaced_file(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return [folder / name for name in (RUNS, CSV, *texts)]


def markdown(found: Sequence[Point]) -> str:
    """The table in Markdown, with a note on its numbers."""
    return study_tables.markdown_table(*cells_of(found, COLUMNS), len(found[0].labels), CAPTION)


def latex(found: Sequence[Point]) -> str:
    """The same table in LaTeX, with the rules of the package booktabs."""
    header, rows = cells_of(found, COLUMNS)
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
    """The columns that fit on a narrow screen."""
    return study_tables.screen_table(title, *cells_of(found, COLUMNS), len(found[0].labels), kept=SCREEN_COLUMNS)


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
        "trainable parameters": point.mask.trainable,
        "training seconds": point.seconds,
    }


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cell.translate(LATEX_ESCAPES) for cell in cells) + r" \\"
