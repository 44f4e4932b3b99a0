"""What a comparison of masks says, in plain sentences."""

from collections.abc import Sequence

from vision_transfer.metrics.classification import wilson_interval
from vision_transfer.tasks.study.comparisons import Compared, Contrast, Standing, compared, test_images
from vision_transfer.tasks.study.mask_runs import MaskRuns

# Below so many test images an accuracy of 0.95 is known to ±0.03 at best, which is more than masks usually differ by.
TINY_TEST = 200
# Smaller p-values say no more than that they are smaller.
SMALLEST_SHOWN = 1e-4
# `.2g` writes larger numbers as powers of ten.
FROM_HERE_WITHOUT_POINT = 100
# Costs that differ by less are called the same: two runs of one config differ as much.
SAME_COST = 0.05


def conclusions(groups: Sequence[MaskRuns], setting: str = "", level: float = 0.05) -> list[str]:
    """Plain sentences: the mask that validation chooses, what it reaches on the test, and how the others compare.

    The first sentences name the mask with the highest mean validation accuracy (of equals the one with fewer trainable
    parameters) and its test accuracy with the t interval over seeds and the Wilson interval of the test images. Then
    one sentence for each other mask, from a paired test on the same test images, with Holm's correction over these
    sentences; then the cheapest mask that is not worse. Where the test split is tiny, validation accuracies stand
    beside, and are labelled as such. The last sentence says which test it was.

    Args:
        groups: two masks or more with the same seeds, tested on the same images in the same order. What differs besides
            the mask (size of the training set, learning rate) is another comparison, with a call of its own: Holm's
            correction is over one call.
        setting: what the groups have in common, put before the first sentence: "with 300 training images".
        level: of the tests, after the correction.

    Returns:
        The sentences, in the order in which they should be read, as plain text.

    Raises:
        UserError: fewer than two masks, seeds that differ, or test splits of different sizes.
    """
    found = compared(groups)
    sentences = [_choice(found, setting), _reached(found.chosen)]
    sentences += [_against(contrast, found.chosen, level) for contrast in found.contrasts]
    sentences.append(_cheapest(found, level))
    if test_images(found.chosen.runs) < TINY_TEST:
        sentences.append(_beside(found))
    sentences.append(_method(found))
    return sentences


def _choice(found: Compared, setting: str) -> str:
    chosen, seeds = found.chosen, found.chosen.validation.count
    second = max((contrast.other for contrast in found.contrasts), key=lambda one: one.validation.mean)
    over = f", mean over {seeds} seeds" if seeds > 1 else ""
    sentence = (
        f"validation chooses {chosen.runs.name}: {chosen.validation.mean:.3f} on "
        f"{chosen.runs.validation_examples:,} validation images{over}; next is {second.runs.name} with "
        f"{second.validation.mean:.3f}."
    )
    return _capital(f"{setting.strip()}, {sentence}" if setting.strip() else sentence)


def _reached(chosen: Standing) -> str:
    seeds = (
        "one seed, so that nothing is known of other seeds"
        if chosen.test.share_interval is None
        else f"95 % interval {_interval(chosen.test.share_interval)} over seeds (t)"
    )
    images = test_images(chosen.runs)
    return (
        f"On the test it reaches {chosen.test.mean:.3f}: {seeds}, and {_interval(chosen.test_interval)} for the "
        f"{images:,} test images (Wilson)."
    )


def _against(contrast: Contrast, chosen: Standing, level: float) -> str:
    name, best = contrast.other.runs.name, chosen.runs.name
    numbers = f"{_points(contrast.difference)} on the test, {_p_value(contrast.adjusted)}"
    if contrast.distinguishable(level):
        verdict = f"is {'better' if contrast.difference > 0 else 'worse'} than {best} ({numbers})"
        if contrast.difference > 0:
            verdict += ", which validation did not see"
    elif contrast.adjusted < level:
        spread = f"{_points(min(contrast.by_seed))} to {_points(max(contrast.by_seed))}"
        verdict = f"is not distinguishable from {best} ({numbers}, but the seeds disagree: {spread})"
    else:
        verdict = f"is not distinguishable from {best} ({numbers})"
    return f"{name} {verdict}, and {_cost(contrast.cost)}."


def _cheapest(found: Compared, level: float) -> str:
    """The mask to take where time counts: the cheapest of those that the test does not show to be worse."""
    chosen = found.chosen
    cheaper = [
        contrast
        for contrast in found.contrasts
        if contrast.cost < 1 - SAME_COST and not (contrast.distinguishable(level) and contrast.difference < 0)
    ]
    if not cheaper:
        if all(contrast.cost >= 1 - SAME_COST for contrast in found.contrasts):
            return f"No mask is cheaper than {chosen.runs.name}."
        return f"All cheaper masks are shown to be worse than {chosen.runs.name}."
    least = min(cheaper, key=lambda contrast: contrast.cost)
    return (
        f"The cheapest mask that is not shown to be worse is {least.other.runs.name}: {_two_digits(least.cost)} of the "
        f"time of {chosen.runs.name}, {least.other.runs.trainable:,} trainable parameters instead of "
        f"{chosen.runs.trainable:,}."
    )


def _beside(found: Compared) -> str:
    """Validation accuracies, where the test says little."""
    everything = (found.chosen, *(contrast.other for contrast in found.contrasts))
    images, best = found.chosen.runs.validation_examples, found.chosen.validation.mean
    listed = ", ".join(f"{one.runs.name} {one.validation.mean:.3f}" for one in everything)
    spread = _interval(wilson_interval(round(best * images), images))
    return (
        f"The test has {test_images(found.chosen.runs)} images only, too few to tell masks apart. Beside it, "
        f"validation accuracies on {images:,} images: {listed} (for the first, Wilson {spread}). They are "
        "validation, not test: epochs and the mask were chosen on them, so they flatter."
    )


def _method(found: Compared) -> str:
    seeds, tests = found.chosen.test.count, len(found.contrasts)
    test = (
        "McNemar's exact test"
        if seeds == 1
        else "McNemar's exact test extended to several seeds (an image's difference is the number of seeds that are "
        "right on it, so that seeds do not count as images; all seeds must agree in sign besides)"
    )
    correction = f"p after Holm's correction for {tests} comparisons" if tests > 1 else "p of one comparison"
    return f"{_capital(test)}; {correction}. Not distinguishable does not mean equal."


def _interval(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}"


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f} points"


def _p_value(value: float) -> str:
    return f"p = {value:.2g}" if value >= SMALLEST_SHOWN else f"p < {SMALLEST_SHOWN:g}"


def _cost(ratio: float) -> str:
    return "costs about as much" if abs(ratio - 1) <= SAME_COST else f"costs {_two_digits(ratio)} times as much"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _two_digits(ratio: float) -> str:
    """Rounded to two digits that count, and never written as a power of ten: 0.0064, 2.1, 140."""
    rounded = float(f"{ratio:.2g}")
    return f"{rounded:.2g}" if rounded < FROM_HERE_WITHOUT_POINT else f"{rounded:,.0f}"
