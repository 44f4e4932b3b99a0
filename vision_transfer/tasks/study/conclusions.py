"""A comparison of masks in plain sentences."""

from collections.abc import Mapping, Sequence

from vision_transfer.errors import UserError
from vision_transfer.metrics.classification import wilson_interval
from vision_transfer.tasks.study.comparisons import LEVEL, Comparison, Contrast, MaskRuns, compare, contrasts, mask_runs
from vision_transfer.tasks.study.plan import ANY, BATCH, SEED, SIZE, STATISTICS, Label, label_words
from vision_transfer.tasks.study.runs import FinishedRun
from vision_transfer.tasks.study.statistics import p_text

# With fewer test images an accuracy of 0.95 is known to ±0.03 at best, which is more than masks usually differ by.
TINY_TEST = 200
# `.2g` writes larger numbers as powers of ten.
FROM_HERE_WITHOUT_POINT = 100
# Costs that differ by less are called the same: two runs of one config differ as much.
SAME_COST = 0.05


def conclusions_by_setting(finished: Sequence[FinishedRun]) -> list[list[str]]:
    """The `conclusions` for each size of the training set and of the batches, and `conclusions_on_statistics`.

    What is compared are masks, with backbone, rate, multipliers, schedule and statistics where the runs have several of
    them. Where runs are missing, a sentence that says which replaces the conclusions.
    """
    by_setting: dict[str, dict[str, list[FinishedRun]]] = {}
    for one in finished:
        labels = one.run.labels
        setting = f"with {labels[SIZE]:,} training images"
        setting += f" in batches of {labels[BATCH]}" if BATCH in labels else ""
        name = _name(labels, without=(SIZE, BATCH, SEED))
        by_setting.setdefault(setting, {}).setdefault(name, []).append(one)
    paragraphs = []
    for setting, masks in by_setting.items():
        try:
            paragraphs.append(conclusions([mask_runs(name, runs) for name, runs in masks.items()], setting))
        except UserError as error:
            paragraphs.append([f"No conclusion {setting}: {error}."])
    on_statistics = conclusions_on_statistics(finished)
    return [*paragraphs, on_statistics] if on_statistics else paragraphs


def conclusions_on_statistics(finished: Sequence[FinishedRun]) -> list[str]:
    """A sentence for each two runs that differ only in the statistics of batch norms; empty if there are none.

    The first value in the plan is what the others are compared with.
    """
    alike: dict[str, dict[Label, list[FinishedRun]]] = {}
    for one in finished:
        value = one.run.labels.get(STATISTICS, ANY)
        if value != ANY:
            name = _name(one.run.labels, without=(STATISTICS, SEED))
            alike.setdefault(name, {}).setdefault(value, []).append(one)
    try:
        pairs: list[tuple[MaskRuns, MaskRuns]] = []
        for name, by_value in alike.items():
            first, *others = [mask_runs(f"{name}: {value}", runs) for value, runs in by_value.items()]
            pairs += [(other, first) for other in others]
        if not pairs:
            return []
        return [
            "Statistics of batch norms, all else equal:",
            *(_against(one, first) for one, (_, first) in zip(contrasts(pairs), pairs, strict=True)),
            _method(len(pairs[0][0].seeds), len(pairs)),
        ]
    except UserError as error:
        return [f"No conclusion on the statistics of batch norms: {error}."]


def conclusions(masks: Sequence[MaskRuns], setting: str = "") -> list[str]:
    """Sentences on the mask that validation chooses, what it reaches on the test split, and how the others compare.

    There is one sentence for each other mask, from the paired test of `compare`, and one on the cheapest mask that is
    not worse. Where the test split is tiny, validation accuracies are added and labelled as such.

    Args:
        masks: see `compare`. Masks with other settings (size of the training set, learning rate) are another comparison
            and need their own call: Holm's correction is over one call.
        setting: what the masks have in common, put before the first sentence: "with 300 training images".

    Raises:
        UserError: see `compare`.
    """
    found = compare(masks)
    chosen = found.chosen
    return [
        _choice(found, setting),
        _test_accuracy(chosen),
        *(_against(contrast, chosen) for contrast in found.contrasts),
        _cheapest(found),
        *([_validation_accuracies(found)] if chosen.test_images < TINY_TEST else []),
        _method(len(chosen.seeds), len(found.contrasts)),
    ]


def _choice(found: Comparison, setting: str) -> str:
    chosen, seeds = found.chosen, len(found.chosen.seeds)
    second = max((contrast.other for contrast in found.contrasts), key=lambda mask: mask.validation.mean)
    over = f", mean over {seeds} seeds" if seeds > 1 else ""
    sentence = (
        f"validation chooses {chosen.name}: {chosen.validation.mean:.3f} on {chosen.validation_examples:,} validation "
        f"images{over}; next is {second.name} with {second.validation.mean:.3f}."
    )
    sentence = f"{setting}, {sentence}" if setting else sentence
    return sentence[:1].upper() + sentence[1:]


def _test_accuracy(chosen: MaskRuns) -> str:
    test = chosen.test
    seeds = (
        "one seed, so the spread over seeds is unknown"
        if test.share_interval is None
        else f"95 % interval {_interval(test.share_interval)} over seeds (t)"
    )
    return (
        f"On the test split it reaches {test.mean:.3f}: {seeds}, and {_interval(chosen.test_interval)} for the "
        f"{chosen.test_images:,} test images (Wilson)."
    )


def _against(contrast: Contrast, chosen: MaskRuns) -> str:
    numbers = f"{_points(contrast.difference)} on the test split, {p_text(contrast.adjusted)}"
    same = f"is not distinguishable from {chosen.name}"
    if contrast.distinguishable:
        better = contrast.difference > 0
        verdict = f"is {'better' if better else 'worse'} than {chosen.name} ({numbers})"
        verdict += ", although validation ranks it no higher" if better else ""
    elif contrast.adjusted < LEVEL:
        spread = f"{_points(min(contrast.by_seed))} to {_points(max(contrast.by_seed))}"
        verdict = f"{same} ({numbers}, but the seeds disagree: {spread})"
    else:
        verdict = f"{same} ({numbers})"
    cost = "about as much" if abs(contrast.cost - 1) <= SAME_COST else f"{_two_digits(contrast.cost)} times as much"
    return f"{contrast.other.name} {verdict}, and costs {cost}."


def _cheapest(found: Comparison) -> str:
    """The mask to take where time counts: the cheapest of those that the test does not show to be worse."""
    chosen = found.chosen
    cheaper = [contrast for contrast in found.contrasts if contrast.cost < 1 - SAME_COST]
    if not cheaper:
        return f"No mask is cheaper than {chosen.name}."
    not_worse = [one for one in cheaper if one.difference >= 0 or not one.distinguishable]
    if not not_worse:
        return f"All cheaper masks are shown to be worse than {chosen.name}."
    least = min(not_worse, key=lambda contrast: contrast.cost)
    return (
        f"The cheapest mask that is not shown to be worse is {least.other.name}: {_two_digits(least.cost)} of the time "
        f"of {chosen.name}, {least.other.trainable:,} trainable parameters instead of {chosen.trainable:,}."
    )


def _validation_accuracies(found: Comparison) -> str:
    chosen, images = found.chosen, found.chosen.validation_examples
    masks = (chosen, *(contrast.other for contrast in found.contrasts))
    listed = ", ".join(f"{mask.name} {mask.validation.mean:.3f}" for mask in masks)
    spread = _interval(wilson_interval(round(chosen.validation.mean * images), images))
    return (
        f"The test split has only {chosen.test_images} images, too few to tell masks apart. Validation accuracies on "
        f"{images:,} images: {listed} (Wilson interval of the first: {spread}). They are optimistic: epochs and the "
        "mask were chosen on them."
    )


def _method(seeds: int, tests: int) -> str:
    test = (
        "McNemar's exact test"
        if seeds == 1
        else "McNemar's exact test extended to several seeds (an image's difference is the number of seeds that "
        "classify it correctly, so seeds do not count as images; in addition, all seeds must agree in sign)"
    )
    correction = f"p after Holm's correction for {tests} comparisons" if tests > 1 else "p of one comparison"
    return f"{test}; {correction}. Not distinguishable does not mean equal."


def _name(labels: Mapping[str, Label], without: Sequence[str]) -> str:
    """The runs with these labels, in sentences that state the labels `without` elsewhere."""
    return ", ".join(label_words(name, value) for name, value in labels.items() if name not in without)


def _interval(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}"


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f} points"


def _two_digits(ratio: float) -> str:
    """Rounds to two significant digits, never written as a power of ten: 0.0064, 2.1, 140."""
    rounded = float(f"{ratio:.2g}")
    return f"{rounded:.2g}" if rounded < FROM_HERE_WITHOUT_POINT else f"{rounded:,.0f}"
