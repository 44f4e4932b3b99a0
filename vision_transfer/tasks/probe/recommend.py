"""A freeze spec from the scores of all layers: the textbooks' table of four cases, with a number for each word in it.

The table is that of Stanford's CS231n notes ("Transfer Learning") and of Chollet's book: small or large data, from a
domain that is similar to the pretraining's or different. The rule, of which every number is printed:

- *As good as the best* is a layer whose logistic probe is not distinguishable from the best layer's: McNemar's exact
  test on the same held-out answers, p ≥ 0.05, uncorrected, so that a layer must be rather good to count.
- *Similar* is a domain in which the last layer is as good as the best: what the network learnt up to its end is what
  this task needs, too. *Different* is one in which it is not, and earlier layers tell the classes apart better.
- *Large* is a training set of at least `probe.large_from` images.
- Small and similar: `all`, the head alone. Large and similar: the last block trains.
- Small and different: what stands behind the *deepest* layer as good as the best trains, at least the last block: all
  that transfers as it is stays frozen.
- Large and different: what stands behind the *first* layer as good as the best trains, at least the last two blocks:
  there are images enough to learn what the pretrained layers do no better than those before them.

The textbooks give no numbers; these are choices, made after looking at the probe's curves of cats/dogs and sign
language (300 images each) and before looking at any ablation of them. An ablation (`configs/ablation.py`) is what
confirms or refutes a recommendation. With few images the test tells few layers apart, which makes more layers as good
as the best, and the domain sooner similar.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vision_transfer.metrics.significance import paired
from vision_transfer.models.layers import Conv, Layer, block_starts, layer_names
from vision_transfer.tasks.probe.scores import LayerScores, best_layer

SIGNIFICANT = 0.05
# What each case calls for, in the words of the textbooks.
TABLE = {
    ("small", "similar"): "train a new head on the frozen network",
    ("large", "similar"): "fine-tune the top of the network at a small rate",
    ("small", "different"): "build on earlier layers: keep what transfers, and train what stands behind it",
    ("large", "different"): "start from the weights and fine-tune most of the network",
}


@dataclass(frozen=True)
class Recommendation:
    """A freeze spec and why.

    Attributes:
        freeze: the spec.
        size: `small` or `large`.
        domain: `similar` or `different`.
        best: the layer with the best probe.
        as_good: layers that are as good as it, from the input on.
        reasons: sentences, from the numbers to the spec.
    """

    freeze: str
    size: str
    domain: str
    best: str
    as_good: tuple[str, ...]
    reasons: tuple[str, ...]


def recommend(
    scores: Sequence[LayerScores], backbone: Sequence[Layer], train_images: int, large_from: int
) -> Recommendation:
    """Applies the rule.

    Args:
        scores: of all probed layers, from the input on.
        backbone: the table that the freeze spec is for.
        train_images: that there are to train on.
        large_from: training images from which a set is large.
    """
    by_layer = {one.layer: one for one in scores}
    best = by_layer[best_layer([one.layer for one in scores], [one.probe for one in scores])]
    as_good = tuple(one.layer for one in scores if paired(one.right, best.right).p_value >= SIGNIFICANT)
    last = scores[-1]
    size = "large" if train_images >= large_from else "small"
    holds = last.layer in as_good
    domain = "similar" if holds else "different"
    freeze, why = _freeze(size, domain, as_good, backbone)
    reasons = (
        f"Data: {train_images:,} training images, {size} (large from {large_from:,}).",
        f"Best layer: {best.layer} with {best.probe:.3f}. As good as it: {_between(as_good)}.",
        f"The last layer, {last.layer}, has {last.probe:.3f}, which is {'' if holds else 'not '}as good as the best "
        f"(p = {paired(last.right, best.right).p_value:.2g}), so the domain is {domain}.",
        f"{size.capitalize()} data, {domain} domain: {TABLE[size, domain]}.",
        why,
        *_alternative(size, domain, best.layer),
    )
    return Recommendation(freeze, size, domain, best.layer, as_good, reasons)


def _freeze(size: str, domain: str, as_good: Sequence[str], backbone: Sequence[Layer]) -> tuple[str, str]:
    """The spec of a case, and the sentence that says how it follows."""
    starts = block_starts(backbone)
    if (size, domain) == ("small", "similar"):
        return "all", "All convolutions stay frozen."
    if domain == "similar":
        return _below(starts[-1], backbone), f"The last block trains, from {starts[-1]} on."
    kept, least = (as_good[-1], starts[-1]) if size == "small" else (as_good[0], starts[-2:][0])
    which = "deepest" if size == "small" else "first"
    behind = _convolution_behind(kept, backbone)
    if behind is None or _place(behind, backbone) > _place(least, backbone):
        blocks = "last block" if size == "small" else "last two blocks"
        return _below(least, backbone), (
            f"The {which} layer as good as the best, {kept}, would leave less to train than the {blocks}, which train "
            f"at least: from {least} on."
        )
    return _below(behind, backbone), (
        f"{kept} is the {which} layer as good as the best; what stands behind it trains, from {behind} on."
    )


def _alternative(size: str, domain: str, best: str) -> tuple[str, ...]:
    """What CS231n's notes advise for small data of a different domain, which no freeze spec says."""
    if (size, domain) != ("small", "different"):
        return ()
    return (
        f"The textbooks' other way: leave out what stands behind {best}, and train a head on it alone, by "
        f"--config.model.backbone_output={best} and freeze=all.",
    )


def _below(layer: str, backbone: Sequence[Layer]) -> str:
    first = next(row.name for row in backbone if isinstance(row, Conv))
    return "none" if layer == first else f"below:{layer}"


def _convolution_behind(layer: str, backbone: Sequence[Layer]) -> str | None:
    behind = backbone[_place(layer, backbone) + 1 :]
    return next((row.name for row in behind if isinstance(row, Conv)), None)


def _place(layer: str, backbone: Sequence[Layer]) -> int:
    return layer_names(backbone).index(layer)


def _between(layers: Sequence[str]) -> str:
    if len(layers) == 1:
        return "none but itself"
    return ", ".join(layers)


def commonest_share(labels: np.ndarray) -> float:
    """Accuracy of always answering the commonest class."""
    return float(np.max(np.bincount(labels)) / len(labels))
