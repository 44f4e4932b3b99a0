"""Writes `report.html` of a run: one file that needs no other."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.files import write_text
from vision_transfer.tasks.report.image_section import NO_IMAGES, image_section
from vision_transfer.tasks.report.run_files import UNREADABLE, RunFiles, read_run_files
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
from vision_transfer.tasks.report.stage_section import RULE, stage_sections
from vision_transfer.tasks.report.test_section import (
    CLASS_COLUMNS,
    calibration_section,
    class_rows,
    confusion_table,
    decision_sentences,
    headlines,
    ranking_charts,
)

Part = TypeVar("Part")


def write_report(path: Path, cache_dir: Path, screen: Screen, out: Path | None = None) -> Path:
    """Writes the report of a run, finished or not; `out` is by default `report.html` in its folder.

    Raises:
        UserError: `path` is not the folder of a run.
    """
    run = read_run_files(path)
    return write_page(out or run.folder.report_file, "run.html.jinja", run_page(run, cache_dir, screen))


def run_page(run: RunFiles, cache_dir: Path, screen: Screen) -> dict[str, Any]:
    """The values for the template of a run."""
    missing = list(run.missing)
    positive = None if run.decision is None else run.decision.positive
    changed, kept = part(missing, "config.json", lambda: config_rows(run), ([], []))
    images = part(missing, "predictions.npz", lambda: image_section(run, cache_dir, screen, missing), NO_IMAGES)
    return {
        "run": run,
        "headlines": part(missing, "result.json", lambda: headlines(run), {}),
        "data": part(missing, "the data set in result.json", lambda: data_rows(run), []),
        "network": part(missing, "the network in config.json", lambda: network_rows(run), []),
        "stages": part(missing, "the stages in result.json", lambda: stage_rows(run), []),
        "curves": part(missing, "metrics.jsonl", lambda: stage_sections(run), []),
        "rule": RULE,
        "confusion": part(missing, "the confusion matrix in result.json", lambda: confusion_table(run), None),
        "class_columns": CLASS_COLUMNS,
        "class_rows": part(missing, "the confusion matrix in result.json", lambda: class_rows(run), []),
        "calibration": part(missing, "predictions.npz", lambda: calibration_section(run.predictions), None),
        "ranking": part(missing, "predictions.npz", lambda: ranking_charts(run.predictions, run.classes, positive), []),
        "decision": decision_sentences(run.decision),
        "images": images,
        "times": part(missing, "the seconds in result.json", lambda: time_costs(run), []),
        "total_time": total_time(run),
        "memory": part(missing, "the memory in result.json", lambda: memory_costs(run), []),
        "origin": origin_rows(run),
        "command": command(run),
        "changed": changed,
        "kept": kept,
        "missing": missing,
    }


def part(missing: list[str], what: str, build: Callable[[], Part], otherwise: Part) -> Part:
    """Builds a part of a page; where this version cannot read its values, adds a sentence to `missing`."""
    try:
        return build()
    except UNREADABLE as error:
        sentence = f"{what}: was not written by this version, or was edited ({type(error).__name__}: {error})."
        if sentence not in missing:
            missing.append(sentence)
        return otherwise


def write_page(file: Path, template: str, values: dict[str, Any]) -> Path:
    """Fills a template and writes it as UTF-8; returns the file.

    Every value is escaped, since names of files and classes come from elsewhere. Characters without a code in UTF-8,
    such as bytes of a foreign file name, are written as escapes.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("vision_transfer.tasks.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template(template).render(values, made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"))
    write_text(file, html)
    return file
