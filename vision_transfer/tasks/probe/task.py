"""The task `probe`: scores of every layer, their curve, and a recommended freeze spec; the network is not trained."""

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int32

from vision_transfer.config import Config
from vision_transfer.data.dataset import Split
from vision_transfer.data.folds import named_groups, pairs_of_groups
from vision_transfer.data.images.near_duplicates import connected, equal_contents
from vision_transfer.data.rows import TakenRows
from vision_transfer.errors import UserError
from vision_transfer.feature_cache import Prefix
from vision_transfer.models.backbones.registry import find_backbone
from vision_transfer.models.layers import CONVOLUTIONS, Row, layer_names, layers_of, row_numbers, stage_ends
from vision_transfer.runs.build import with_each_backbone
from vision_transfer.runs.folder import default_folder
from vision_transfer.runs.prepare import Run, RunOptions, prepare
from vision_transfer.runtime.console import Screen, duration
from vision_transfer.runtime.files import write_json
from vision_transfer.runtime.provenance import json_digest
from vision_transfer.tasks.figures import draw_or_say_why, drawable, line_style, new_axes, save_png
from vision_transfer.tasks.probe.networks import ProbedNetwork, say_networks
from vision_transfer.tasks.probe.pooled_features import pooled_features, probed_layers
from vision_transfer.tasks.probe.recommend import Recommendation, recommend
from vision_transfer.tasks.probe.scores import LayerScores, best_layer, layer_scores, usable
from vision_transfer.tasks.tables import screen_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHADE = "#E6E6E6"
INCHES_PER_LAYER, SMALLEST_WIDTH, HEIGHT = 0.42, 7.0, 6.4
RESULT, FIGURE = "probe.json", "probe.png"
# The row of a head that sees the averages at the ends of all stages (`model.pooling="layers"`).
ALL_STAGES = "all stages"


def transfer_figure(
    scores: Sequence[LayerScores], recommendation: Recommendation, backbone: Sequence[Row], chance: float, title: str
) -> "Figure":
    """Two panels over the same layers: the accuracies of both probes, and LogME, which has another unit.

    Layers that are as good as the best are shaded; a line marks where the recommended mask starts to train.
    """
    width = max(SMALLEST_WIDTH, INCHES_PER_LAYER * len(scores))
    figure, (upper, lower) = new_axes(width, HEIGHT, rows=2, sharex=True, height_ratios=(3, 2))
    probes = [one.probe for one in scores]
    # Rounding may put an interval's end at 1 slightly below the value, and an error bar must not be negative.
    below = [max(0.0, one.probe - one.probe_interval[0]) for one in scores]
    above = [max(0.0, one.probe_interval[1] - one.probe) for one in scores]
    upper.errorbar(range(len(scores)), probes, yerr=(below, above), capsize=3, label="logistic probe", **line_style(0))
    upper.plot([one.nearest_mean for one in scores], label="nearest class mean", **line_style(1))
    upper.axhline(chance, color="0.4", linewidth=1, linestyle=":", label="commonest class")
    lower.plot([one.logme for one in scores], label="LogME", **line_style(2))
    for axes in (upper, lower):
        _mark(axes, scores, recommendation, backbone, labelled=axes is upper)
    upper.legend(frameon=False, loc="best")
    upper.set_ylabel("cross-validated accuracy")
    lower.set_ylabel("LogME (nats per image)")
    names = [drawable(one.layer) for one in scores]
    lower.set_xticks(range(len(scores)), names, rotation=60, ha="right", rotation_mode="anchor")
    upper.set_title(f"{title}\nrecommended: freeze {recommendation.freeze}")
    return figure


def _mark(
    axes: "Axes",
    scores: Sequence[LayerScores],
    recommendation: Recommendation,
    backbone: Sequence[Row],
    *,
    labelled: bool,
) -> None:
    shown = "as good as the best" if labelled else None
    for place, one in enumerate(scores):
        if one.layer in recommendation.as_good:
            axes.axvspan(place - 0.5, place + 0.5, color=SHADE, linewidth=0, zorder=0, label=shown)
            shown = None
    numbers = row_numbers(backbone)
    kind, _, first = recommendation.freeze.partition(":")
    start = {"all": len(backbone), "none": 0}.get(kind)
    start = numbers[first] if start is None else start
    edge = sum(numbers[one.layer] < start for one in scores) - 0.5
    axes.axvline(edge, color="black", linewidth=1.5, linestyle="--", label="trains from here" if labelled else None)


def probe(config: Config, options: RunOptions, screen: Screen) -> Path:
    """Scores all layers on the training images and recommends a freeze spec; returns the folder of the result.

    Validation and test images are not used. `probe.json` has all scores and the reasons, `probe.png` the curve. Each of
    several backbones has a folder with both, and `networks.md` in the folder of the result compares them.

    Raises:
        UserError: config, data or weights cannot be used, or there are too few images to cross-validate.
    """
    configs = with_each_backbone(config)
    if len(configs) == 1:
        return _probe_network(configs[0], options, screen).folder
    found = []
    for one in configs:
        place = None if options.workdir is None else options.workdir / one.model.backbone
        found.append(_probe_network(one, replace(options, workdir=place), screen))
        screen.say()
    digest = json_digest([one.digest for one in found])
    folder = options.workdir or default_folder(f"{config.name}_networks", digest).path
    say_networks(found, folder, screen)
    return folder


def _probe_network(config: Config, options: RunOptions, screen: Screen) -> ProbedNetwork:
    """Probes one backbone and writes its results."""
    began = time.monotonic()
    run = prepare(config, options, screen)
    backbone = run.network.backbone
    if not any(isinstance(layer, CONVOLUTIONS) for layer in layers_of(backbone)):
        raise UserError(
            f"config.model.backbone: {config.model.backbone!r} has no convolutions, so there is no depth to choose"
        )
    train = run.dataset.train
    groups = _groups(train, config.dataset.grouped_by)
    kept = np.flatnonzero(usable(train.labels, groups))
    labels, groups = train.labels[kept], groups[kept]
    screen.say(run.dataset.note)
    if len(np.unique(groups)) < len(kept):
        screen.say(f"The {len(kept):,} images are of {len(np.unique(groups)):,} groups; no fold divides one.")
    variables = run.initial_variables()
    layers = probed_layers(backbone)
    prefix = Prefix(
        run.network,
        variables,
        run.mesh,
        run.config.eval_batch_size,
        options.cache_dir,
        backbone=run.config.model.backbone,
    )
    pooled = pooled_features(prefix, layers, TakenRows(train.images, kept), train.digests[kept], screen)
    features_seconds = time.monotonic() - began
    scores = layer_scores(pooled, labels, groups, screen)
    ends = [name for name in layers if name in layer_names(stage_ends(backbone)) or name == layers[-1]]
    all_stages = {ALL_STAGES: np.concatenate([pooled[name] for name in ends], axis=1)}
    (together,) = layer_scores(all_stages, labels, groups, screen)
    chance = float(np.max(np.bincount(labels)) / len(labels))
    large_from = config.probe.large_from
    last_stage = find_backbone(config.model.backbone).fine_tune_from
    advice = recommend(scores, backbone, len(train), large_from, last_stage)
    digest = json_digest([run.identity.digest, large_from])
    folder = options.workdir or default_folder(config.name, digest).path
    seconds = {"total": time.monotonic() - began, "features": features_seconds}
    title = f"{run.dataset.name}, {len(kept):,} images of {run.config.dataset.image_size} pixels"
    write_json(folder / RESULT, _result(run, scores, together, advice, chance, seconds))
    file = folder / FIGURE
    draw_or_say_why(file, lambda: save_png(transfer_figure(scores, advice, backbone, chance, title), file), screen)
    _say(scores, together, advice, title, screen)
    screen.say(f"Results in {folder}: {RESULT}, {FIGURE}. Time: {duration(seconds['total'])}.")
    depths = [*(one for one in scores if one.layer in ends), together]
    return ProbedNetwork(config.model.backbone, scores, depths, advice, folder, digest, seconds["total"])


def _groups(train: Split, pattern: str | None) -> Int32[np.ndarray, "examples"]:
    """The number of each image's group: equal images, and what the user names together."""
    pairs = [equal_contents(train.digests), pairs_of_groups(named_groups(train, pattern))]
    return connected(len(train), np.concatenate(pairs))


def _result(
    run: Run,
    scores: list[LayerScores],
    together: LayerScores,
    advice: Recommendation,
    chance: float,
    seconds: dict[str, float],
) -> dict[str, Any]:
    """The content of `probe.json`, as JSON values."""
    return {
        "name": run.config.name,
        "digest": run.identity.digest,
        "dataset": {
            "name": run.dataset.name,
            "fingerprint": run.dataset.fingerprint,
            "classes": list(run.dataset.classes),
            "train": len(run.dataset.train),
            "scored": len(scores[0].correct),
            "image_size": run.config.dataset.image_size,
        },
        "weights": None if run.weights is None else {"source": run.weights.source, "sha256": run.weights.sha256},
        "chance": chance,
        "layers": [{**_entry(one), "as_good_as_best": one.layer in advice.as_good} for one in scores],
        "all_stages": _entry(together),
        "recommendation": asdict(advice) | {"as_good": list(advice.as_good), "reasons": list(advice.reasons)},
        "large_from": run.config.probe.large_from,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "device": run.identity.device,
        "versions": run.identity.versions,
    }


def _entry(one: LayerScores) -> dict[str, Any]:
    return {
        "layer": one.layer,
        "features": one.width,
        "probe": one.probe,
        "probe_ci95": list(one.probe_interval),
        "nearest_mean": one.nearest_mean,
        "logme": one.logme,
    }


def _say(scores: list[LayerScores], together: LayerScores, advice: Recommendation, title: str, screen: Screen) -> None:
    rows = []
    for one in (*scores, together):
        (low, high), mark = one.probe_interval, "*" if one.layer in advice.as_good else " "
        probe, interval = f"{one.probe:.3f}{mark}", f"{low:.3f}–{high:.3f}"
        rows.append([one.layer, probe, interval, f"{one.nearest_mean:.3f}", f"{one.logme:.3f}"])
    note = (
        "Cross-validated accuracy of a logistic probe (95 % Wilson interval) and of nearest class means, and LogME in "
        "nats per image, on the averaged feature maps. * as good as the best probe."
    )
    screen.say(screen_table(title, ("Layer", "Probe", "95 %", "Means", "LogME"), rows, 1, note))
    for reason in advice.reasons:
        screen.say(reason)
    nearest, logme = best_layer(scores, lambda one: one.nearest_mean), best_layer(scores, lambda one: one.logme)
    screen.say(f"For comparison only: the best layer by nearest class mean is {nearest.layer}, by LogME {logme.layer}.")
    screen.say(f"Recommended: --config.stages.<stage>.freeze={advice.freeze}", style="bold")
