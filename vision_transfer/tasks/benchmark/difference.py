"""Benchmarks side by side: two commits, chips or versions; ratios of times with intervals, and what became slower."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from vision_transfer.errors import UserError
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.files import read_json, write_text
from vision_transfer.tasks.benchmark.roofline import NOTICEABLE, case_key
from vision_transfer.tasks.benchmark.tables import case_line, case_name, plain_table
from vision_transfer.tasks.tables import markdown_table

RESULT = "benchmark.json"
DRAWS, SEED = 2000, 0
ENDS = (2.5, 97.5)
CAPTION = (
    "Ratios of median times, with 95 % intervals from resampled repeats. These do not cover what differs between two "
    "commands, such as the machine's other load, so less than {least:.0%} counts as no change."
)
Record = dict[str, Any]


def is_benchmark(path: Path) -> bool:
    """Whether a folder is that of a benchmark."""
    return (path / RESULT).is_file()


def write_difference(paths: Sequence[Path], out: Path, screen: Screen) -> Path:
    """Compares the cases of each later benchmark with the same ones of the first; writes Markdown, and prints it.

    Raises:
        UserError: a folder without measured cases, or two without a case in common.
    """
    results = [_read(path) for path in paths]
    lines = ["# Benchmarks compared"]
    for path, result in zip(paths[1:], results[1:], strict=True):
        rows = differences(results[0]["measured"], result["measured"])
        if not rows:
            raise UserError(f"--workdir: {paths[0]} and {path} have no measured case in common")
        title = f"{path.name} / {paths[0].name}"
        changes = [f"{name}: {before} → {after}" for name, before, after in _changes(results[0], result)]
        slower = [f"slower: {case_line(row)}, {_text(row)}" for row in rows if row["slower"]]
        screen.say(_table(title, rows))
        for line in [*changes, *(slower or ["nothing became slower"])]:
            screen.say(line, style="red" if line in slower else None)
        body = [(case_line(row), *_cells(row)) for row in rows]
        table = markdown_table(("case", "ms", "ms", "ratio", ""), body, 1)
        listed = [f"- {line}" for line in [*changes, *(slower or ["nothing became slower"])]]
        lines += ["", f"## {title}", "", *listed, "", table.rstrip()]
    write_text(out, "\n".join([*lines, "", CAPTION.format(least=NOTICEABLE - 1), ""]))
    return out


def differences(before: Sequence[Record], after: Sequence[Record]) -> list[Record]:
    """For each case measured in both, from the slowest change to the fastest: its ratio, interval and verdict."""
    first = {case_key(record): record for record in before if record["seconds"] is not None}
    rows = []
    for record in after:
        other = first.get(case_key(record))
        if record["seconds"] is None or other is None:
            continue
        ratio, (low, high) = ratio_of_medians(record["repeats"], other["repeats"])
        verdict = {"slower": low > 1 and ratio > NOTICEABLE, "faster": high < 1 and ratio < 1 / NOTICEABLE}
        seconds = {"before": other["seconds"]["median"], "after": record["seconds"]["median"]}
        rows.append({**record, **seconds, **verdict, "ratio": ratio, "interval": [low, high]})
    return sorted(rows, key=lambda row: -row["ratio"])


def ratio_of_medians(after: Sequence[float], before: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """The ratio of two medians with its 95 % percentile-bootstrap interval (Efron and Tibshirani 1993, ch. 13)."""
    rng = np.random.default_rng(SEED)
    drawn = [np.median(rng.choice(values, (DRAWS, len(values))), axis=1) for values in (after, before)]
    low, high = np.percentile(drawn[0] / drawn[1], ENDS).tolist()
    return float(np.median(after) / np.median(before)), (low, high)


def _read(path: Path) -> Record:
    try:
        result = read_json(path / RESULT)
    except (OSError, ValueError) as error:
        raise UserError(f"{path / RESULT}: cannot be read ({error})") from error
    if not any("repeats" in record for record in result.get("measured", ())):
        raise UserError(f"{path}: has no measured cases with their repeats; measure it again with this version")
    return result


def _changes(before: Record, after: Record) -> list[tuple[str, Any, Any]]:
    """Differences between two benchmarks besides their times: name, before and after."""
    facts = [
        {**result["machine"], **result["versions"], "code": result["code_digest"], **result["config"]}
        for result in (before, after)
    ]
    one, other = facts
    return [(name, one.get(name), other.get(name)) for name in {**one, **other} if one.get(name) != other.get(name)]


def _table(title: str, rows: Sequence[Record]) -> Table:
    table = plain_table(title, ("ms", "ms", "ratio", ""), CAPTION.format(least=NOTICEABLE - 1))
    for row in rows:
        table.add_row(case_name(row), *_cells(row))
    return table


def _cells(row: Record) -> list[str]:
    times = [f"{1000 * row[name]:,.2f}" for name in ("before", "after")]
    return [*times, _text(row), "slower" if row["slower"] else "faster" if row["faster"] else ""]


def _text(row: Record) -> str:
    return "{:.2f} ({:.2f}–{:.2f})".format(row["ratio"], *row["interval"])
