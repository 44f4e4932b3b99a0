"""Several runs on one page: their figures, their curves over each other, and the images on which they differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from vision_transfer.errors import UserError
from vision_transfer.metrics.significance import Paired, paired
from vision_transfer.runtime.console import Screen, duration
from vision_transfer.tasks.report.charts import Chart
from vision_transfer.tasks.report.curves import QUANTITIES
from vision_transfer.tasks.report.gallery import find_album
from vision_transfer.tasks.report.page import now, part, render, write_page
from vision_transfer.tasks.report.record import RunRecord, get, number, read_record
from vision_transfer.tasks.report.run_section import default_value, flat_config, shown_value
from vision_transfer.tasks.report.stage_facts import overlaid_chart
from vision_transfer.tasks.report.test_section import headlines, probability_text
from vision_transfer.tasks.report.thumbnails import data_uri, is_tiny, shrunk

COMPARISON_TEMPLATE = "comparison.html.jinja"
# Each run has a colour and dashes of its own, and there are so many.
MOST_RUNS = 6
# Images on which runs differ that are shown.
PICTURES = 24
# The usual level; the sentence gives the p-value, too.
SIGNIFICANT = 0.05
# Smaller p-values say no more than that they are smaller.
SMALLEST_SHOWN = 1e-4


@dataclass(frozen=True)
class RunColumn:
    """A run's column of the table: its title, and a figure or a dash per row."""

    title: str
    figures: list[str]


@dataclass(frozen=True)
class Differing:
    """A test image on which runs differ: its name, class, picture, and what each run says of it."""

    file: str
    label: str
    uri: str | None
    verdicts: list[tuple[str, str, str, bool]]


def write_comparison(paths: Sequence[Path], out: Path, cache_dir: Path, screen: Screen) -> Path:
    """Writes the page that compares runs; returns its file.

    Args:
        paths: folders of the runs.
        out: the file to write.
        cache_dir: root of all caches.
        screen: for progress bars.

    Raises:
        UserError: one of the paths is no run's folder, or there are too many.
    """
    if len(paths) > MOST_RUNS:
        raise UserError(f"--workdir: {len(paths)} runs; a comparison has at most {MOST_RUNS}")
    records = [read_record(path) for path in paths]
    return write_page(out, render(COMPARISON_TEMPLATE, comparison_page(records, cache_dir, screen)))


def comparison_page(records: Sequence[RunRecord], cache_dir: Path, screen: Screen) -> dict[str, Any]:
    """What the template of a comparison is filled with."""
    titles = _titles(records)
    missing = [
        f"{title}: {sentence}" for title, record in zip(titles, records, strict=True) for sentence in record.missing
    ]
    runs = list(zip(titles, records, strict=True))
    pairs = part(
        missing, "the predictions", lambda: [_sentence(*one, *other) for one, other in combinations(runs, 2)], []
    )
    return {
        "titles": titles,
        "rows": ROWS,
        "columns": part(missing, "result.json", lambda: [RunColumn(title, _figures(one)) for title, one in runs], []),
        "config": part(missing, "config.json", lambda: _config_differences(records), []),
        "charts": part(missing, "metrics.jsonl", lambda: _charts(runs), []),
        "pairs": pairs,
        "differing": part(missing, "the predictions", lambda: _differing(runs, cache_dir, screen, missing), []),
        "missing": missing,
        "made": now(),
    }


ROWS = (
    "Test accuracy",
    "95 % interval",
    "Test loss",
    "Balanced accuracy",
    "Calibration error (ECE)",
    "Parameters that train in the last stage",
    "Epochs, all stages",
    "Time",
    "Test images",
)


def _figures(record: RunRecord) -> list[str]:
    test, known = get(record.result, "test") or {}, {one.name: one.value for one in headlines(record)}
    ends, seconds = test.get("accuracy_ci95"), number(get(record.result, "seconds", "total"))
    return [
        known.get("Test accuracy", "–"),
        f"{ends[0]:.4f} to {ends[1]:.4f}" if ends else "–",
        known.get("Test loss", "–"),
        known.get("Balanced accuracy", "–"),
        known.get("Calibration error", "–"),
        known.get("Trainable", "–"),
        str(len(record.epochs)),
        "–" if seconds is None else duration(seconds),
        f"{test['examples']:,}" if "examples" in test else "–",
    ]


def _titles(records: Sequence[RunRecord]) -> list[str]:
    """A letter for each run, and the name of its folder."""
    return [f"{chr(ord('A') + place)}: {record.folder.path.absolute().name}" for place, record in enumerate(records)]


def _config_differences(records: Sequence[RunRecord]) -> list[tuple[str, list[str]]]:
    """The fields in which the configs differ, with the value of each run; one that is not there has its default."""
    flat = [flat_config(record.config) for record in records]
    names = [
        name
        for name in sorted(set().union(*flat))
        if any(one.get(name, default_value(name)) != default_value(name) for one in flat)
    ]
    values = [(name, [shown_value(one[name]) if name in one else "–" for one in flat]) for name in names]
    return [(name, row) for name, row in values if len(set(row)) > 1]


def _charts(runs: Sequence[tuple[str, RunRecord]]) -> list[Chart]:
    charts = (overlaid_chart(quantity, [(title, record.epochs) for title, record in runs]) for quantity in QUANTITIES)
    return [chart for chart in charts if chart is not None]


def shared_rows(first: RunRecord, second: RunRecord) -> tuple[Int64[np.ndarray, "shared"], Int64[np.ndarray, "shared"]]:
    """Rows of the test images that both runs predicted, by name, with the same label in both."""
    if first.predictions is None or second.predictions is None or first.classes != second.classes:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    _, ours, theirs = np.intersect1d(first.predictions.files, second.predictions.files, return_indices=True)
    same = first.predictions.labels[ours] == second.predictions.labels[theirs]
    return ours[same], theirs[same]


def _sentence(title: str, record: RunRecord, other_title: str, other: RunRecord) -> str:
    ours, theirs = shared_rows(record, other)
    if record.predictions is None or other.predictions is None or not len(ours):
        return f"{title} and {other_title} have no test images in common that both predicted, so they are not compared."
    found = paired(record.predictions.right[ours], other.predictions.right[theirs])
    return f"{title} against {other_title}, on {len(ours):,} images: {paired_sentence(found)}"


def paired_sentence(found: Paired) -> str:
    """A paired comparison in words."""
    disagreements = found.first_only + found.second_only
    if not disagreements:
        return "they are right on the same images."
    p_value = f"p = {found.p_value:.2g}" if found.p_value >= SMALLEST_SHOWN else f"p < {SMALLEST_SHOWN:g}"
    better = "the first" if found.first_only > found.second_only else "the second"
    opinion = (
        f"{better} is better beyond what chance would make (McNemar's exact test, {p_value})"
        if found.p_value < SIGNIFICANT
        else f"chance alone could make such a difference (McNemar's exact test, {p_value})"
    )
    return f"the first alone is right on {found.first_only:,}, the second alone on {found.second_only:,}; {opinion}."


def _differing(
    runs: Sequence[tuple[str, RunRecord]], cache_dir: Path, screen: Screen, missing: list[str]
) -> list[Differing]:
    """Images that some runs classify rightly and others do not, those first on which they are surest of it."""
    with_predictions = [(title, record) for title, record in runs if record.predictions is not None]
    chosen = _chosen([record for _, record in with_predictions])
    if not chosen:
        return []
    first = with_predictions[0][1]
    album = find_album(first, cache_dir, screen, missing)
    images = {} if album is None else album.test_images(list(chosen))
    found = []
    for file, rows in chosen.items():
        verdicts = [_verdict(title, record, row) for (title, record), row in zip(with_predictions, rows, strict=True)]
        label = first.classes[int(first.predictions.labels[rows[0]])] if first.predictions is not None else ""
        image = images.get(file)
        uri = None if image is None else data_uri(shrunk(image), exact=is_tiny(image))
        found.append(Differing(file, label, uri, verdicts))
    return found


def _chosen(records: Sequence[RunRecord]) -> dict[str, list[int]]:
    """Names of the images that all runs predicted and not all are right on, with the row of each run."""
    if len(records) < 2:
        return {}
    pairs = [shared_rows(records[0], record) for record in records]
    shared = sorted(set.intersection(*({*ours.tolist()} for ours, _ in pairs)))
    row_of = [dict(zip(ours.tolist(), theirs.tolist(), strict=True)) for ours, theirs in pairs]
    scored = []
    for row in shared:
        rows = [rows[row] for rows in row_of]
        known = [(record.predictions, own) for record, own in zip(records, rows, strict=True) if record.predictions]
        right = [bool(predictions.right[own]) for predictions, own in known]
        if any(right) and not all(right):
            surest = max(float(predictions.margin[own]) for predictions, own in known if not predictions.right[own])
            scored.append((-surest, known[0][0].files[rows[0]], rows))
    return {file: rows for _, file, rows in sorted(scored)[:PICTURES]}


def _verdict(title: str, record: RunRecord, row: int) -> tuple[str, str, str, bool]:
    predictions = record.predictions
    if predictions is None:
        return title, "–", "–", False
    confidence = probability_text(float(predictions.confidence[row]))
    return title, record.classes[int(predictions.predicted[row])], confidence, bool(predictions.right[row])
