"""Tables that several tasks write: rows of text for the screen and in Markdown, and rows of values as CSV.

A table of text is its header and rows; its first `labels` columns are names, the others numbers.
"""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from vision_transfer.runtime.files import replaced_file

Row = dict[str, Any]
# A bar inside a cell of Markdown.
ESCAPED_BAR = "\\|"


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Writes rows with the same keys as a CSV file with a header."""
    with replaced_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], labels: int, note: str = "") -> str:
    """A Markdown table, followed by a note if there is one."""
    rule = ["---"] * labels + ["---:"] * (len(header) - labels)
    lines = [f"| {' | '.join(cell.replace('|', ESCAPED_BAR) for cell in cells)} |" for cells in (header, rule, *rows)]
    return "\n".join([*lines, *(["", note] if note else [])]) + "\n"


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
    table = Table(title=title, title_justify="left", caption=note, caption_justify="left")
    table.box, table.pad_edge = box.SIMPLE_HEAD, False
    for place in shown:
        table.add_column(header[place], justify="left" if place < labels else "right")
    for cells in rows:
        table.add_row(*(cells[place] for place in shown))
    return table


def mean_text(value: float, interval: tuple[float, float] | None) -> str:
    """A mean with its interval in brackets, if there is one."""
    return f"{value:.4f}" if interval is None else f"{value:.4f} ({interval_text(interval)})"


def interval_text(interval: tuple[float, float]) -> str:
    """`0.9000 to 0.9500`."""
    return f"{interval[0]:.4f} to {interval[1]:.4f}"
