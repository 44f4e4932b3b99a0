"""Several runs on one page: their metrics, their curves in one chart, and the images on which they differ."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from vision_transfer.config import flatten
from vision_transfer.errors import UserError
from vision_transfer.metrics.significance import Paired, paired
from vision_transfer.runtime.console import Screen
from vision_transfer.tasks.report.image_section import images_of, probability_text, thumbnail_uri
from vision_transfer.tasks.report.page import part, write_page
from vision_transfer.tasks.report.run_files import Predictions, RunFiles, get, read_run_files
from vision_transfer.tasks.report.run_section import default_value, shown_value, total_time
from vision_transfer.tasks.report.stage_section import overlaid_charts
from vision_transfer.tasks.report.test_section import headlines
from vision_transfer.tasks.study.statistics import p_text

# Each run has its own colour and dashes in the style sheet.
MOST_RUNS = 6
# Images on which runs differ that are shown.
IMAGES = 24
# The usual level; the sentence gives the p-value, too.
SIGNIFICANT = 0.05

# A run with its title: a letter and the name of its folder.
TitledRun = tuple[str, RunFiles]


def write_comparison(paths: Sequence[Path], out: Path, cache_dir: Path, screen: Screen) -> Path:
    """Writes the page that compares the runs in some folders; returns its file.

    Raises:
        UserError: one of the paths is not a run's folder, or there are too many.
    """
    if len(paths) > MOST_RUNS:
        raise UserError(f"--workdir: {len(paths)} runs; a comparison has at most {MOST_RUNS}")
    runs = [
        (f"{chr(ord('A') + place)}: {path.absolute().name}", read_run_files(path)) for place, path in enumerate(paths)
    ]
    return write_page(out, "comparison.html.jinja", comparison_page(runs, cache_dir, screen))


def comparison_page(runs: Sequence[TitledRun], cache_dir: Path, screen: Screen) -> dict[str, Any]:
    """The values for the template of a comparison."""
    missing = [f"{title}: {sentence}" for title, run in runs for sentence in run.missing]
    pairs = list(combinations(runs, 2))
    return {
        "titles": [title for title, _ in runs],
        "metrics": part(missing, "result.json", lambda: _metric_rows([run for _, run in runs]), []),
        "config": part(missing, "config.json", lambda: _config_differences([run for _, run in runs]), []),
        "charts": part(
            missing, "metrics.jsonl", lambda: overlaid_charts([(title, run.epochs) for title, run in runs]), []
        ),
        "pairs": part(missing, "predictions.npz", lambda: [_sentence(*one, *other) for one, other in pairs], []),
        "differing": part(missing, "predictions.npz", lambda: _differing(runs, cache_dir, screen, missing), []),
        "missing": missing,
    }


def _metric_rows(runs: Sequence[RunFiles]) -> list[tuple[str, ...]]:
    """Name of each metric, and its value or a dash for each run."""
    columns = []
    for run in runs:
        test, known = get(run.result, "test") or {}, {name: value for name, (value, _) in headlines(run).items()}
        ends = test.get("accuracy_ci95")
        columns.append(
            {
                "Accuracy, test or out of fold": known.get("Test accuracy") or known.get("Expected accuracy"),
                "95 % interval": f"{ends[0]:.4f} to {ends[1]:.4f}" if ends else None,
                "Test loss": known.get("Test loss"),
                "Balanced accuracy": known.get("Balanced accuracy"),
                "Calibration error (ECE)": known.get("Calibration error"),
                "Trainable parameters in the last stage": known.get("Trainable"),
                "Epochs, all stages": str(len(run.epochs)),
                "Time": total_time(run),
                "Test images": f"{test['examples']:,}" if "examples" in test else None,
            }
        )
    return [(name, *(column[name] or "–" for column in columns)) for name in columns[0]]


def _config_differences(runs: Sequence[RunFiles]) -> list[tuple[str, ...]]:
    """The fields in which the configs differ, with the value for each run; a dash for a missing field, which has its
    default.
    """
    flat = [flatten(run.config) for run in runs]
    names = [
        name
        for name in sorted(set().union(*flat))
        if any(one.get(name, default_value(name)) != default_value(name) for one in flat)
    ]
    rows = [(name, *(shown_value(one[name]) if name in one else "–" for one in flat)) for name in names]
    return [row for row in rows if len(set(row[1:])) > 1]


def shared_rows(first: RunFiles, second: RunFiles) -> tuple[Int64[np.ndarray, "shared"], Int64[np.ndarray, "shared"]]:
    """Rows of the test images that both runs predicted, by name, with the same label in both; none of other data."""
    if first.predictions is None or second.predictions is None or not _same_data(first, second):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    _, ours, theirs = np.intersect1d(first.predictions.files, second.predictions.files, return_indices=True)
    same = first.predictions.labels[ours] == second.predictions.labels[theirs]
    return ours[same], theirs[same]


def _same_data(first: RunFiles, second: RunFiles) -> bool:
    """Whether equal names mean equal images: the classes and the place of the data are the same, or its content is."""
    one, other = (
        ([get(run.config, "dataset", name) for name in ("name", "root")], get(run.result, "dataset", "fingerprint"))
        for run in (first, second)
    )
    return first.classes == second.classes and (one[0] == other[0] or one[1] == other[1])


def _sentence(title: str, run: RunFiles, other_title: str, other: RunFiles) -> str:
    ours, theirs = shared_rows(run, other)
    if run.predictions is None or other.predictions is None or not len(ours):
        return f"{title} and {other_title} have no test images in common that both predicted, so they are not compared."
    found = paired(run.predictions.right[ours], other.predictions.right[theirs])
    return f"{title} against {other_title}, on {len(ours):,} images: {paired_sentence(found)}"


def paired_sentence(found: Paired) -> str:
    """A paired comparison in words."""
    if not found.first_only + found.second_only:
        return "they are correct on the same images."
    better = "the first" if found.first_only > found.second_only else "the second"
    significant = found.p_value < SIGNIFICANT
    opinion = f"{better} is significantly better" if significant else "the difference could be due to chance"
    return (
        f"only the first is correct on {found.first_only:,}, only the second on {found.second_only:,}; {opinion} "
        f"(McNemar's exact test, {p_text(found.p_value)})."
    )


def _differing(runs: Sequence[TitledRun], cache_dir: Path, screen: Screen, missing: list[str]) -> list[dict[str, Any]]:
    """Images that some runs classify correctly and others do not, those with the most confident mistakes first.

    `predictions` are title, class, confidence and correctness for each run; `uri` is None without the image.
    """
    titled = [(title, run, run.predictions) for title, run in runs if run.predictions is not None]
    chosen = _chosen([(run, predictions) for _, run, predictions in titled])
    if not chosen:
        return []
    _, first, first_predictions = titled[0]
    source = images_of(first, cache_dir, screen, missing)
    images = source.test_images(list(chosen)) if source else {}

    def predicted(title: str, run: RunFiles, predictions: Predictions, row: int) -> tuple[str, str, str, bool]:
        confidence = probability_text(predictions.confidence[row])
        return title, run.classes[predictions.predicted[row]], confidence, bool(predictions.right[row])

    return [
        {
            "file": file,
            "label": first.classes[first_predictions.labels[rows[0]]],
            "uri": thumbnail_uri(images[file]) if file in images else None,
            "predictions": [predicted(*run, row) for run, row in zip(titled, rows, strict=True)],
        }
        for file, rows in chosen.items()
    ]


def _chosen(runs: Sequence[tuple[RunFiles, Predictions]]) -> dict[str, list[int]]:
    """Names of the images that all runs predicted but not all correctly, with the row of each run."""
    if len(runs) < 2:
        return {}
    (first, predictions), *_ = runs
    pairs = [shared_rows(first, run) for run, _ in runs]
    row_of = [dict(zip(ours.tolist(), theirs.tolist(), strict=True)) for ours, theirs in pairs]
    scored = []
    for row in sorted(set.intersection(*map(set, row_of))):
        rows = [rows[row] for rows in row_of]
        margins = [own.margin[place] for (_, own), place in zip(runs, rows, strict=True) if not own.right[place]]
        if 0 < len(margins) < len(runs):
            scored.append((-float(max(margins)), predictions.files[row], rows))
    return {file: rows for _, file, rows in sorted(scored)[:IMAGES]}
