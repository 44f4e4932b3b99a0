"""The mode `check`: inspects a data set before training, lists what is wrong, and draws a contact sheet."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from rich.table import Column, Table

from vision_transfer.config import Config
from vision_transfer.data.dataset import Split
from vision_transfer.data.find import find_source
from vision_transfer.data.images.cache import load_images
from vision_transfer.data.images.near_duplicates import connected
from vision_transfer.data.images.resize import Form
from vision_transfer.data.source import Source, fingerprint
from vision_transfer.errors import UserError
from vision_transfer.feature_cache import Prefix, features
from vision_transfer.models.backbones.registry import backbone_rows
from vision_transfer.models.load import load_backbone_weights
from vision_transfer.models.network import Network
from vision_transfer.models.precision import Numerics
from vision_transfer.models.pretrained.load import PretrainedWeights
from vision_transfer.runtime.console import Screen, duration
from vision_transfer.runtime.devices import local_mesh
from vision_transfer.runtime.files import write_json
from vision_transfer.tasks.check import rules
from vision_transfer.tasks.check.contact_sheet import draw_sheet
from vision_transfer.tasks.check.findings import KINDS, Finding, counted, worst_first
from vision_transfer.tasks.check.labels import FEWEST_WITH_VOTES, out_of_fold, outliers, outvoted, suspects
from vision_transfer.tasks.check.scan import Scan, scan_source

BACKBONE, LAYER = "vgg16", "block5_pool"
# Five poolings reduce 32 pixels to one.
SMALLEST_SIZE = 32
# Images whose maps are averaged at a time.
_ROWS = 256
# Findings of a kind that the screen lists; check.json has all.
NAMED = 3
REPORT, SHEET = "check.json", "check.png"
_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}
_RGB = 3
_FINGERPRINT_SHOWN = 12


def vgg_weights(config: Config, cache_dir: Path, screen: Screen) -> PretrainedWeights:
    """VGG16's published weights, or the file that the config names; fetches them only if `check.labels` is `always`.

    Raises:
        UserError: they are not on this machine, or cannot be fetched.
    """
    path = config.model.weights_path if config.model.backbone == BACKBONE else None
    return load_backbone_weights(
        BACKBONE,
        channels=_RGB,
        cache_dir=cache_dir,
        path=path,
        screen=screen,
        allow_download=config.check.labels == "always",
    )


def image_features(
    config: Config, source: Source, weights: PretrainedWeights, cache_dir: Path, screen: Screen
) -> Float[np.ndarray, "images channels"]:
    """The mean of every channel of the last map for every image that decodes, at the size of training."""
    size = max(config.dataset.image_size or source.default_size, SMALLEST_SIZE)
    form = Form(size, _RGB, config.dataset.resampling)
    splits, _ = load_images(source, form, cache_dir, screen, config.dataset.decode)
    plain = Network(backbone_rows(BACKBONE), (), (size, size, _RGB), numerics=Numerics(config.precision))
    network = replace(plain, preprocessing=weights.preprocessing)
    prefix = Prefix(
        network,
        {"params": weights.params, "batch_stats": {}},
        local_mesh(),
        config.eval_batch_size,
        cache_dir,
        dtype=config.features.dtype,
        backbone=BACKBONE,
    )
    # The images that decode are the same, in the same order, as in the scan.
    values = [_means(prefix, splits[name], screen) for name in source.splits if len(splits[name])]
    return np.concatenate(values)


def _means(prefix: Prefix, split: Split, screen: Screen) -> Float[np.ndarray, "images channels"]:
    rows = features(prefix, LAYER, split.images, split.digests, screen)
    starts = range(0, len(split), _ROWS)
    parts = [rows[np.arange(start, min(start + _ROWS, len(split)))].astype(np.float32) for start in starts]
    return np.concatenate([part.mean(axis=(1, 2)) for part in parts])


def check(config: Config, cache_dir: Path, folder: Path | None, screen: Screen) -> Path:
    """Checks the data set that the config names; returns the folder of `check.json` and the contact sheet `check.png`.

    Nothing is trained, moved or changed, and missing splits are not made. The folder is `folder`; default:
    `runs/check-<name>-<fingerprint>`.

    Raises:
        UserError: no such data, or no image that decodes.
    """
    began = time.monotonic()
    source = find_source(config.dataset, cache_dir, screen)
    scan = scan_source(source, config.dataset.channels, screen)
    if not scan.decoded.any():
        reasons = [*(image.problem for image in scan.images), *(skipped.reason for skipped in source.skipped)]
        why = next(iter(reasons), "it has no images")
        raise UserError(f"--config.dataset.root: {source.name} has no image that decodes ({why})")
    of_copies, pairs = rules.copies(scan)
    of_features, labels = _check_labels(config, source, scan, pairs, cache_dir, screen)
    findings = worst_first(
        [
            *rules.layout(source),
            *rules.unreadable(source, scan),
            *rules.class_sizes(scan),
            *rules.unusual_files(
                source, scan, config.dataset.image_size or source.default_size, config.dataset.value_range
            ),
            *of_copies,
            *of_features,
        ]
    )
    place = folder or Path("runs") / f"check-{source.name}-{fingerprint(source)[:_FINGERPRINT_SHOWN]}"
    images = [(examples, row) for examples in source.splits.values() for row in range(len(examples.files))]
    has_sheet = draw_sheet(findings, lambda number: images[number][0].pixels(images[number][1], _RGB), place / SHEET)
    write_json(place / REPORT, _report(source, scan, findings, labels, time.monotonic() - began))
    _say(source, scan, findings, labels, screen)
    files = f"{REPORT} (all findings)" + (f" and {SHEET} (the images)" if has_sheet else "")
    screen.say(f"In {place}: {files}. It took {duration(time.monotonic() - began)}.")
    return place


def _check_labels(
    config: Config, source: Source, scan: Scan, pairs: np.ndarray, cache_dir: Path, screen: Screen
) -> tuple[list[Finding], dict[str, Any]]:
    """Suspect labels and outliers; and the entry `labels` of `check.json`: the accuracy, or why it was not done."""
    if config.check.labels == "never":
        return [], {"done": False, "why": "--config.check.labels=never"}
    try:
        weights = vgg_weights(config, cache_dir, screen)
    except UserError as reason:
        if config.check.labels == "always":
            raise
        why = f"{str(reason).splitlines()[0]}; --config.check.labels=always fetches them"
        return [], {"done": False, "why": why}
    features = image_features(config, source, weights, cache_dir, screen)
    places = np.flatnonzero(scan.decoded)
    labels, groups = scan.labels[places], connected(len(scan.files), pairs)[places]
    findings = []
    for row, factor in outliers(features, groups):
        place = int(places[row])
        detail = f"{scan.class_of(place)}; it lies {factor:.1f} times as far from its neighbours as they do from theirs"
        findings.append(Finding("outlier", detail, (scan.files[place],), (place,), factor))
    with screen.bar("Cross-validating labels", 1, "passes") as advance:
        answers = out_of_fold(features, labels, groups, len(scan.classes))
        advance(1)
    if answers is None:
        why = "fewer than two classes have enough images that are not near-duplicates of each other"
        return findings, {"done": False, "why": why}
    many = len(features) >= FEWEST_WITH_VOTES
    contradicted = outvoted(features, labels) if many else np.ones(len(features), bool)
    for row, likelier, margin in suspects(answers, labels):
        if not contradicted[row]:
            continue
        place = int(places[row])
        own, other = answers.probabilities[row, [labels[row], likelier]]
        detail = f"{scan.class_of(place)} {own:.3f}, {scan.classes[likelier]} {other:.3f}"
        findings.append(Finding("suspect_label", detail, (scan.files[place],), (place,), margin))
    return findings, {"done": True, "accuracy": answers.accuracy, "images": int(answers.asked.sum())}


def _report(
    source: Source, scan: Scan, findings: list[Finding], labels: dict[str, Any], seconds: float
) -> dict[str, Any]:
    """The content of `check.json`."""
    counts = rules.class_counts(scan)
    return {
        "name": source.name,
        "fingerprint": fingerprint(source),
        "images": {
            name: {label: int(count) for label, count in zip(scan.classes, counts[split], strict=True)}
            for split, name in enumerate(scan.split_names)
        },
        "labels": labels,
        "counts": counted(findings),
        "findings": [
            {name: getattr(finding, name) for name in ("kind", "files", "detail", "score")}
            | {"severity": KINDS[finding.kind].severity}
            for finding in findings
        ],
        "seconds": round(seconds, 3),
    }


def _say(source: Source, scan: Scan, findings: list[Finding], labels: dict[str, Any], screen: Screen) -> None:
    sizes = rules.class_counts(scan).sum(axis=1)
    splits = ", ".join(f"{int(size):,} {name}" for name, size in zip(scan.split_names, sizes, strict=True))
    screen.say(f"{source.name}: {len(scan.classes)} classes; images: {splits}.")
    if not findings:
        screen.say("No problems were found.")
    for kind, count in counted(findings).items():
        screen.say()
        what = KINDS[kind]
        screen.say(f"{count:,} × {what.title} ({kind}, {what.severity}): {what.advice}", style=_STYLES[what.severity])
        columns = (Column(overflow="fold"), Column(overflow="fold"))
        table = Table(*columns, box=None, show_header=False, padding=(0, 1), pad_edge=True)
        of_kind = [finding for finding in findings if finding.kind == kind]
        for finding in of_kind[:NAMED]:
            table.add_row("\n".join(finding.files) or "–", finding.detail)
        if count > NAMED:
            table.add_row(f"… and {count - NAMED:,} more", "")
        screen.say(table)
    screen.say()
    if labels["done"]:
        screen.say(
            f"Labels: a classifier on VGG16's features agrees with {labels['accuracy']:.3f} of the labels of "
            f"{labels['images']:,} images that it was not trained on."
        )
    else:
        screen.say(f"Labels were not checked: {labels['why']}.")
