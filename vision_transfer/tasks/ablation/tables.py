"""The tables of an ablation: a row per run as CSV, and a row per mask as CSV, Markdown and LaTeX; its conclusions."""

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.table import Table

from vision_transfer.runtime.files import replaced_file
from vision_transfer.tasks.study import tables as study_tables
from vision_transfer.tasks.study.runs import FinishedRun
from vision_transfer.tasks.study.tables import Group, Row, cells_of, interval_text, mean_text, run_rows, write_csv

RUNS, CSV, MARKDOWN, LATEX, CONCLUSIONS = "runs.csv", "table.csv", "table.md", "table.tex", "conclusions.md"
CAPTION = (
    "Test: mean over seeds (95 % t interval of that mean, cut off at 0 and 1). Wilson: 95 % interval of that mean for "
    "the number of test images. ECE: expected calibration error on the test split, mean over seeds. Seconds: training "
    "and validation of a run, median over seeds; a shared stage counts in each run that has it, computing features "
    "does not."
)
# Characters that LaTeX would read as commands.
LATEX_ESCAPES = str.maketrans({character: f"\\{character}" for character in "_%&#$"} | {"–": "--"})
COLUMNS: dict[str, Callable[[Group], str]] = {
    "runs": lambda group: f"{group.test.count}",
    "test accuracy": lambda group: mean_text(group.test.mean, group.test.share_interval),
    "Wilson": lambda group: interval_text(group.test_interval),
    "validation": lambda group: "–" if group.validation is None else f"{group.validation.mean:.4f}",
    "ECE": lambda group: f"{group.ece.mean:.4f}",
    "trainable": lambda group: f"{group.trainable:,}",
    "seconds": lambda group: f"{group.training_seconds:,.0f}",
}
# Columns besides the labels that fit on a narrow screen.
SCREEN_COLUMNS = ("test accuracy", "validation", "seconds")


def write_tables(
    finished: Sequence[FinishedRun], groups: Sequence[Group], conclusions: Sequence[Sequence[str]], folder: Path
) -> list[Path]:
    """Writes all tables, and the paragraphs of conclusions as Markdown lists; returns the files."""
    extra = [{"test ece": one.ece, "training seconds": one.training_seconds} for one in finished]
    write_csv([row | more for row, more in zip(run_rows(finished), extra, strict=True)], folder / RUNS)
    write_csv([_numbers(group) for group in groups], folder / CSV)
    paragraphs = ("\n".join(f"- {sentence}" for sentence in paragraph) for paragraph in conclusions)
    texts = {MARKDOWN: markdown(groups), LATEX: latex(groups), CONCLUSIONS: "\n\n".join(paragraphs) + "\n"}
    for name, text in texts.items():
        with replaced_file(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return [folder / name for name in (RUNS, CSV, *texts)]


def markdown(groups: Sequence[Group]) -> str:
    """The table in Markdown, with a note on its numbers."""
    return study_tables.markdown_table(*cells_of(groups, COLUMNS), len(groups[0].labels), CAPTION)


def latex(groups: Sequence[Group]) -> str:
    """The same table in LaTeX, with the rules of the package booktabs."""
    header, rows = cells_of(groups, COLUMNS)
    labels = len(groups[0].labels)
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


def screen_table(groups: Sequence[Group], title: str) -> Table:
    """The columns that fit on a narrow screen."""
    return study_tables.screen_table(title, *cells_of(groups, COLUMNS), len(groups[0].labels), kept=SCREEN_COLUMNS)


def _numbers(group: Group) -> Row:
    low, high = group.test.interval or ("", "")
    return {
        **group.labels,
        "runs": group.test.count,
        "test accuracy": group.test.mean,
        "test ci95 low": low,
        "test ci95 high": high,
        "test images": group.test_images,
        "test wilson95 low": group.test_interval[0],
        "test wilson95 high": group.test_interval[1],
        "validation accuracy": "" if group.validation is None else group.validation.mean,
        "test ece": group.ece.mean,
        "trainable parameters": group.trainable,
        "training seconds": group.training_seconds,
    }


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cell.translate(LATEX_ESCAPES) for cell in cells) + r" \\"
