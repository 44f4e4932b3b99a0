"""Derives a freeze spec from the scores of all layers: the textbooks' table of four cases, with a number for each term.

The table is that of Stanford's CS231n notes ("Transfer Learning") and of Chollet's book: small or large data, from a
domain that is similar to that of the pretraining or different. The rule, whose numbers are all printed:

- *As good as the best* is a layer whose logistic probe is not distinguishable from the best layer's: McNemar's exact
  test on the same held-out answers, p ≥ 0.05, uncorrected, so that a layer must be rather good to count.
- *Similar* is a domain in which the last layer is as good as the best: the task needs what the network has learnt up to
  its end. *Different* is one in which it is not, and earlier layers separate the classes better.
- *Large* is a training set of at least `probe.large_from` images.
- The *last block* is the stage from which recipes fine-tune the backbone, with all that follows it.
- Small and similar: `all`, only the head trains. Large and similar: the last block trains.
- Small and different: the layers after the *deepest* layer as good as the best train, at least the last block: all that
  transfers unchanged stays frozen.
- Large and different: the layers after the *first* layer as good as the best train, at least the last two blocks:
  there are enough images to learn again those layers that are no better than the ones before them.

The textbooks give no numbers; these are choices, made after looking at the probe's curves of cats/dogs and sign
language (300 images each) and before looking at any ablation of them. An ablation (`configs/ablation.py`) confirms or
refutes a recommendation. With few images the test distinguishes few layers, so more layers are as good as the best, and
the domain is more often similar.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from vision_transfer.metrics.significance import paired
from vision_transfer.models.layers import CONVOLUTIONS, Row, layers_of, row_numbers, stage_of, stage_starts
from vision_transfer.tasks.probe.scores import LayerScores, best_layer

SIGNIFICANT = 0.05
# The advice for each case, in the words of the textbooks.
TABLE = {
    ("small", "similar"): "train a new head on the frozen network",
    ("large", "similar"): "fine-tune the top of the network at a small rate",
    ("small", "different"): "build on earlier layers: keep what transfers, and train what follows",
    ("large", "different"): "start from the weights and fine-tune most of the network",
}


@dataclass(frozen=True)
class Recommendation:
    """A freeze spec and the reasons for it, in sentences from the numbers to the spec.

    `size` is small or large, `domain` similar or different, `best` the layer with the best probe, and `as_good` are the
    layers as good as it, from the input on.
    """

    freeze: str
    size: str
    domain: str
    best: str
    as_good: tuple[str, ...]
    reasons: tuple[str, ...]


def recommend(
    scores: Sequence[LayerScores], backbone: Sequence[Row], train_images: int, large_from: int, last_stage: str = ""
) -> Recommendation:
    """Applies the rule to the scores of all probed layers, from the input on; the spec is for the backbone.

    `last_stage` is the stage from which recipes fine-tune the backbone; the last one where its table has none of that
    name.
    """
    best = best_layer(scores, lambda one: one.probe)
    as_good = tuple(one.layer for one in scores if paired(one.correct, best.correct).p_value >= SIGNIFICANT)
    last = scores[-1]
    size = "large" if train_images >= large_from else "small"
    holds = last.layer in as_good
    domain = "similar" if holds else "different"
    freeze, why = _freeze(size, domain, as_good, backbone, last_stage)
    others = ", ".join(layer for layer in as_good if layer != best.layer) or "no other layer"
    reasons = (
        f"Data: {train_images:,} training images, {size} (large from {large_from:,}).",
        f"Best layer: {best.layer} with {best.probe:.3f}. As good as it: {others}.",
        f"The last layer, {last.layer}, has {last.probe:.3f}, which is {'' if holds else 'not '}as good as the best "
        f"(p = {paired(last.correct, best.correct).p_value:.2g}), so the domain is {domain}.",
        f"{size.capitalize()} data, {domain} domain: {TABLE[size, domain]}.",
        why,
    )
    if (size, domain) == ("small", "different"):
        # the advice of CS231n's notes that no freeze spec expresses
        reasons += (
            f"The textbooks' alternative: drop the layers after {best.layer} and train only a head on its output, with "
            f"--config.model.backbone_output={best.layer} and freeze=all.",
        )
    return Recommendation(freeze, size, domain, best.layer, as_good, reasons)


def _freeze(
    size: str, domain: str, as_good: Sequence[str], backbone: Sequence[Row], last_stage: str
) -> tuple[str, str]:
    """The spec of a case, and the sentence that explains it."""
    starts = _starts(backbone, last_stage)
    if (size, domain) == ("small", "similar"):
        return "all", "All convolutions stay frozen."
    if domain == "similar":
        return _below(starts[-1], backbone), f"The last block trains, from {starts[-1]} on."
    which, kept, minimum, least = (
        ("deepest", as_good[-1], "last block", starts[-1])
        if size == "small"
        else ("first", as_good[0], "last two blocks", starts[-2:][0])
    )
    convolutions = [layer.name for layer in layers_of(backbone) if isinstance(layer, CONVOLUTIONS)]
    numbers = row_numbers(backbone)
    after = next((name for name in convolutions if numbers[name] > numbers[kept]), None)
    if after is None or convolutions.index(after) > convolutions.index(least):
        return _below(least, backbone), (
            f"{kept} is the {which} layer as good as the best; fewer layers than the {minimum} follow it, so "
            f"training includes the {minimum} and starts at {least}."
        )
    return _below(after, backbone), (
        f"{kept} is the {which} layer as good as the best; the layers after it train, from {after} on."
    )


def _starts(backbone: Sequence[Row], last_stage: str) -> tuple[str, ...]:
    """The first convolution of each stage, up to the last one that recipes fine-tune from."""
    starts, numbers = stage_starts(backbone), row_numbers(backbone)
    of_stages = [stage_of(backbone[numbers[name]]) for name in starts]
    return starts[: of_stages.index(last_stage) + 1] if last_stage in of_stages else starts


def _below(layer: str, backbone: Sequence[Row]) -> str:
    first = next(layer.name for layer in layers_of(backbone) if isinstance(layer, CONVOLUTIONS))
    return "none" if layer == first else f"below:{layer}"
