"""The tables of an ablation: a row per run as CSV, and a row per mask as CSV, Markdown and LaTeX; its conclusions."""

from collections.abc import Callable, Sequence
from pathlib import Path

from vision_transfer.runtime.files import write_text
from vision_transfer.tasks.study.runs import FinishedRun
from vision_transfer.tasks.study.tables import Group, cells_of, run_rows
from vision_transfer.tasks.tables import Row, interval_text, markdown_table, mean_text, write_csv

RUNS, CSV, MARKDOWN, LATEX, CONCLUSIONS = "runs.csv", "table.csv", "table.md", "table.tex", "conclusions.md"
CAPTION = (
    "Test: mean over seeds (95 % t interval of that mean, cut off at 0 and 1). Wilson: 95 % interval of that mean for "
    "the number of test images. ECE: expected calibration error on the test split, mean over seeds. Seconds: training "
    "and validation of a run, median over seeds; a shared stage counts in each run that has it, computing features "
    "does not."
)
# Characters that LaTeX would read as commands.
LATEX_WORDS = {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "–": "--"}
LATEX_ESCAPES = str.maketrans({character: f"\\{character}" for character in "_%&#${}"} | LATEX_WORDS)
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
    table = (*cells_of(groups, COLUMNS), len(groups[0].labels))
    texts = {
        MARKDOWN: markdown_table(*table, CAPTION),
        LATEX: latex(*table),
        CONCLUSIONS: "\n\n".join(paragraphs) + "\n",
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in (RUNS, CSV, *texts)]


def latex(header: Sequence[str], rows: Sequence[Sequence[str]], labels: int) -> str:
    """A table in LaTeX, with the rules of the package booktabs."""
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
