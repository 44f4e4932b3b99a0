"""`--mode=check`: looks at a data set before training, lists what is wrong with it, and shows the pictures."""

import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from vision_transfer.config import Config
from vision_transfer.data.find import find_source
from vision_transfer.data.images.near_duplicates import connected
from vision_transfer.data.source import Source, fingerprint
from vision_transfer.errors import UserError
from vision_transfer.runs.build import data_request
from vision_transfer.runtime.console import Screen, duration
from vision_transfer.runtime.files import write_json
from vision_transfer.tasks.check.contact_sheet import draw_sheet
from vision_transfer.tasks.check.copies import copies
from vision_transfer.tasks.check.features import picture_features, vgg_weights
from vision_transfer.tasks.check.findings import KINDS, Finding, counted, worst_first
from vision_transfer.tasks.check.labels import out_of_fold, outliers, suspects
from vision_transfer.tasks.check.pictures import unreadable, unusual_files
from vision_transfer.tasks.check.rules import class_counts, class_sizes, folders_like_splits
from vision_transfer.tasks.check.scan import Looked, look_at

# How many findings of a kind the screen names; check.json has all.
NAMED = 3
REPORT, SHEET = "check.json", "check.png"
_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}
_RGB = 3
_FINGERPRINT_SHOWN = 12


def check(config: Config, cache_dir: Path, folder: Path | None, screen: Screen) -> Path:
    """Checks the data set that the config names; returns the folder of `check.json` and the contact sheet `check.png`.

    Nothing is trained, moved or changed, and splits that are not there are not made.

    Args:
        config: `dataset` says which data, `check.labels` whether labels are looked at.
        cache_dir: root of all caches.
        folder: where to write; None for `runs/check-<name>-<fingerprint>`.
        screen: for progress and findings.

    Raises:
        UserError: no such data, or none that can be looked at.
    """
    began = time.monotonic()
    request = data_request(config)
    source = find_source(request, cache_dir, screen)
    looked = look_at(source, screen)
    if not looked.decoded.any():
        why = next((picture.problem for picture in looked.pictures), "there is none")
        raise UserError(f"--config.dataset.root: {source.name} has no picture that decodes ({why})")
    by_copies, pairs = copies(looked)
    by_features, labels = _looked_at_labels(config, source, looked, pairs, cache_dir, screen)
    findings = worst_first(
        [
            *folders_like_splits(looked, request.root),
            *unreadable(source, looked),
            *class_sizes(looked),
            *unusual_files(looked, config.dataset.image_size or source.default_size),
            *by_copies,
            *by_features,
        ]
    )
    place = folder or Path("runs") / f"check-{source.name}-{fingerprint(source)[:_FINGERPRINT_SHOWN]}"
    has_sheet = draw_sheet(findings, _pixels_of(source), place / SHEET)
    write_json(place / REPORT, _report(source, looked, findings, labels, time.monotonic() - began))
    _say(source, looked, findings, labels, screen)
    files = f"{REPORT} (all findings)" + (f" and {SHEET} (the pictures)" if has_sheet else "")
    screen.say(escape(f"In {place}: {files}. It took {duration(time.monotonic() - began)}."))
    return place


def _looked_at_labels(
    config: Config, source: Source, looked: Looked, pairs: np.ndarray, cache_dir: Path, screen: Screen
) -> tuple[list[Finding], dict[str, Any]]:
    """Suspect labels and outliers; and whether labels were looked at, with what accuracy, or why not."""
    if config.check.labels == "never":
        return [], {"done": False, "why": "--config.check.labels=never"}
    try:
        weights = vgg_weights(config, cache_dir, screen)
    except UserError as reason:
        if config.check.labels == "always":
            raise
        why = f"{str(reason).splitlines()[0]}; --config.check.labels=always fetches them"
        return [], {"done": False, "why": why}
    found = picture_features(config, source, looked, weights, cache_dir, screen)
    labels = looked.labels[found.places]
    groups = connected(len(looked.files), pairs)[found.places]
    findings = [
        Finding(
            "outlier",
            f"{looked.class_of(int(place))}; its nearest neighbours are {distance:.1f} times as far as usual",
            (looked.files[place],),
            (int(place),),
            distance,
        )
        for place, distance in ((found.places[row], distance) for row, distance in outliers(found.values))
    ]
    with screen.bar("Cross-validating labels", 1, "passes") as advance:
        answers = out_of_fold(found.values, labels, groups, len(looked.classes))
        advance(1)
    if answers is None:
        return findings, {"done": False, "why": "fewer than two classes have enough pictures"}
    for row, likelier, margin in suspects(answers, labels):
        place = int(found.places[row])
        own = answers.probabilities[row, labels[row]]
        detail = (
            f"{looked.class_of(place)} {own:.3f}, {looked.classes[likelier]} {answers.probabilities[row, likelier]:.3f}"
        )
        findings.append(Finding("suspect_label", detail, (looked.files[place],), (place,), margin))
    return findings, {"done": True, "accuracy": answers.accuracy, "pictures": int(answers.asked.sum())}


def _pixels_of(source: Source):
    parts = list(source.splits.values())
    starts = np.cumsum([0, *(len(examples.files) for examples in parts)])

    def pixels(place: int) -> np.ndarray:
        split = int(np.searchsorted(starts, place, side="right")) - 1
        return parts[split].pixels(place - int(starts[split]), _RGB)

    return pixels


def _report(
    source: Source, looked: Looked, findings: list[Finding], labels: dict[str, Any], seconds: float
) -> dict[str, Any]:
    """The content of `check.json`, as JSON values."""
    counts = class_counts(looked)
    return {
        "name": source.name,
        "fingerprint": fingerprint(source),
        "pictures": {
            name: {label: int(count) for label, count in zip(looked.classes, counts[split], strict=True)}
            for split, name in enumerate(looked.split_names)
        },
        "labels": labels,
        "counts": counted(findings),
        "findings": [
            {
                "kind": finding.kind,
                "severity": KINDS[finding.kind].severity,
                "files": list(finding.files),
                "detail": finding.detail,
                "score": finding.score,
            }
            for finding in findings
        ],
        "seconds": round(seconds, 3),
    }


def _say(source: Source, looked: Looked, findings: list[Finding], labels: dict[str, Any], screen: Screen) -> None:
    sizes = class_counts(looked).sum(axis=1)
    splits = ", ".join(f"{int(size):,} {name}" for name, size in zip(looked.split_names, sizes, strict=True))
    screen.say(escape(f"{source.name}: {len(looked.classes)} classes; pictures: {splits}."))
    if not findings:
        screen.say("Nothing was found to be wrong.")
    for kind, count in counted(findings).items():
        screen.say()
        what = KINDS[kind]
        screen.say(f"{count:,} × {what.title} ({kind}, {what.severity}): {what.advice}", style=_STYLES[what.severity])
        table = Table(box=None, show_header=False, padding=(0, 1), pad_edge=True)
        table.add_column(overflow="fold")
        table.add_column(overflow="fold")
        of_kind = [finding for finding in findings if finding.kind == kind]
        for finding in of_kind[:NAMED]:
            table.add_row(escape("\n".join(finding.files)) or "–", escape(finding.detail))
        if count > NAMED:
            table.add_row(f"… and {count - NAMED:,} more", "")
        screen.say(table)
    screen.say()
    if labels["done"]:
        screen.say(
            f"Labels: a classifier on VGG16's features, asked about pictures that it had not seen, agrees with "
            f"{labels['accuracy']:.3f} of {labels['pictures']:,}."
        )
    else:
        screen.say(escape(f"Labels were not looked at: {labels['why']}."))
