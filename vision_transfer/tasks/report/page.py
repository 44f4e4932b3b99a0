"""`report.html` of a run: gathers what the folder and the data give, and writes one file that needs nothing else."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.files import replaced_file
from vision_transfer.tasks.report.gallery import Gallery, gallery
from vision_transfer.tasks.report.record import UNREADABLE, RunRecord, read_record
from vision_transfer.tasks.report.run_section import (
    command,
    config_rows,
    data_rows,
    memory_costs,
    network_rows,
    origin_rows,
    stage_rows,
    time_costs,
    total_time,
)
from vision_transfer.tasks.report.stage_facts import stage_facts
from vision_transfer.tasks.report.stage_section import RULE
from vision_transfer.tasks.report.test_section import calibration_facts, class_rows, confusion_facts, headlines

RUN_TEMPLATE = "run.html.jinja"
NO_PICTURES = Gallery((), (), (), None)

Part = TypeVar("Part")


def write_report(path: Path, cache_dir: Path, screen: Screen, out: Path | None = None) -> Path:
    """Writes the report of a run, finished or not.

    Args:
        path: folder of the run.
        cache_dir: root of all caches.
        screen: for progress bars.
        out: the file to write; None for `report.html` in the folder.

    Returns:
        The file.

    Raises:
        UserError: `path` is not the folder of a run.
    """
    record = read_record(path)
    html = render(RUN_TEMPLATE, run_page(record, cache_dir, screen))
    return write_page(record.folder.report_file if out is None else out, html)


def run_page(record: RunRecord, cache_dir: Path, screen: Screen) -> dict[str, Any]:
    """What the template of a run is filled with."""
    missing = list(record.missing)
    changed, kept = part(missing, "config.json", lambda: config_rows(record), ([], []))
    pictures = part(missing, "the predictions", lambda: gallery(record, cache_dir, screen, missing), NO_PICTURES)
    return {
        "record": record,
        "headlines": part(missing, "result.json", lambda: headlines(record), []),
        "data": part(missing, "the data set in result.json", lambda: data_rows(record), []),
        "network": part(missing, "the network in config.json", lambda: network_rows(record), []),
        "stages": part(missing, "the stages in result.json", lambda: stage_rows(record), []),
        "curves": part(missing, "metrics.jsonl", lambda: stage_facts(record), []),
        "rule": RULE,
        "confusion": part(missing, "the confusion matrix in result.json", lambda: confusion_facts(record), None),
        "class_rows": part(missing, "the confusion matrix in result.json", lambda: class_rows(record), []),
        "calibration": part(missing, "predictions.npz", lambda: calibration_facts(record.predictions), None),
        "gallery": pictures,
        "times": part(missing, "the seconds in result.json", lambda: time_costs(record), []),
        "total_time": total_time(record),
        "memory": part(missing, "the memory in result.json", lambda: memory_costs(record), []),
        "origin": origin_rows(record),
        "command": command(record),
        "changed": changed,
        "kept": kept,
        "missing": missing,
        "made": now(),
    }


def part(missing: list[str], what: str, build: Callable[[], Part], otherwise: Part) -> Part:
    """A part of a page; where the files say other things than this version expects, a sentence in `missing`."""
    try:
        return build()
    except UNREADABLE as error:
        sentence = f"{what}: is not as this version writes it ({type(error).__name__}: {error})."
        if sentence not in missing:
            missing.append(sentence)
        return otherwise


def render(template: str, values: dict[str, Any]) -> str:
    """Fills a template; every value is escaped, since names of files and classes are not ours."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("vision_transfer.tasks.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(values)


def write_page(file: Path, html: str) -> Path:
    """Writes a page as UTF-8; what has no code there, such as bytes of a foreign file name, is written as an escape."""
    with replaced_file(file) as temporary:
        temporary.write_text(html, encoding="utf-8", errors="backslashreplace")
    return file


def now() -> str:
    """Date and time, for the foot of a page."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
