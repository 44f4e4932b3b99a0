"""Masks compared: what each reaches with its intervals, and the one that validation chooses against each other one."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from jaxtyping import Bool

from vision_transfer.errors import UserError
from vision_transfer.metrics.classification import wilson_interval
from vision_transfer.metrics.significance import paired_over_repeats
from vision_transfer.tasks.study.mask_runs import MaskRuns, Repeat
from vision_transfer.tasks.study.statistics import Summary, holm, summarised


@dataclass(frozen=True)
class Standing:
    """What a mask reaches.

    Attributes:
        runs: of the mask.
        test, validation: accuracies over seeds.
        test_interval: 95 % Wilson interval of the mean test accuracy for as many images as the test has: more seeds
            are not more images.
        seconds: median of a run, which one run on a busy machine does not move.
    """

    runs: MaskRuns
    test: Summary
    validation: Summary
    test_interval: tuple[float, float]
    seconds: float


@dataclass(frozen=True)
class Contrast:
    """Another mask against the chosen one, on the same test images and seeds.

    Attributes:
        other: the mask.
        difference: its mean test accuracy less the chosen one's.
        by_seed: the same for each seed.
        p_value: of `paired_over_repeats`.
        adjusted: the same after Holm's correction over all contrasts with the chosen mask.
        cost: its seconds as a multiple of the chosen one's.
    """

    other: Standing
    difference: float
    by_seed: tuple[float, ...]
    p_value: float
    adjusted: float
    cost: float

    @property
    def seeds_agree(self) -> bool:
        """Whether no seed's difference points the other way than the mean."""
        return all(one * self.difference >= 0 for one in self.by_seed)

    def distinguishable(self, level: float) -> bool:
        """Whether images and seeds both tell the two apart.

        The test is of the images alone. That all seeds agree is asked for besides, which can only make the claim
        rarer: with few seeds one lucky training must not pass for a property of the mask.
        """
        return self.adjusted < level and self.seeds_agree


@dataclass(frozen=True)
class Compared:
    """A comparison of masks: the one that validation chooses, and each other one against it, in the order given."""

    chosen: Standing
    contrasts: tuple[Contrast, ...]


def compared(groups: Sequence[MaskRuns]) -> Compared:
    """Chooses by validation, and compares on the test.

    Since the test has no say in the choice, its accuracy of the chosen mask is no maximum over masks, and the tests
    against the others need no correction but Holm's. Of equals on validation the one with fewer trainable parameters
    is chosen.

    Raises:
        UserError: fewer than two masks, seeds that differ, or test splits of different sizes.
    """
    _check(groups)
    standings = [standing(group) for group in groups]
    chosen = max(standings, key=lambda one: (one.validation.mean, -one.runs.trainable))
    others = [one for one in standings if one is not chosen]
    p_values = [paired_over_repeats(_right(one.runs), _right(chosen.runs)) for one in others]
    contrasts = [
        Contrast(
            other,
            other.test.mean - chosen.test.mean,
            _differences(other.runs, chosen.runs),
            p_value,
            adjusted,
            other.seconds / chosen.seconds,
        )
        for other, p_value, adjusted in zip(others, p_values, holm(p_values), strict=True)
    ]
    return Compared(chosen, tuple(contrasts))


def standing(runs: MaskRuns) -> Standing:
    """Accuracies of a mask with their intervals."""
    test = summarised([float(np.mean(one.test_right)) for one in runs.repeats])
    return Standing(
        runs,
        test,
        summarised([one.validation_accuracy for one in runs.repeats]),
        wilson_interval(round(test.mean * test_images(runs)), test_images(runs)),
        median(one.seconds for one in runs.repeats),
    )


def test_images(runs: MaskRuns) -> int:
    """How many images the mask was tested on."""
    return len(runs.repeats[0].test_right)


def _right(runs: MaskRuns) -> Bool[np.ndarray, "repeats examples"]:
    return np.stack([one.test_right for one in _by_seed(runs)])


def _differences(first: MaskRuns, second: MaskRuns) -> tuple[float, ...]:
    return tuple(float(value) for value in np.mean(_right(first), axis=1) - np.mean(_right(second), axis=1))


def _by_seed(runs: MaskRuns) -> list[Repeat]:
    return sorted(runs.repeats, key=lambda one: str(one.seed))


def _check(groups: Sequence[MaskRuns]) -> None:
    if len(groups) < 2:
        raise UserError(f"a comparison needs two masks or more with finished runs; there are {len(groups)}")
    first = groups[0]
    for group in groups:
        if [one.seed for one in _by_seed(group)] != [one.seed for one in _by_seed(first)]:
            raise UserError(
                f"{group.name} and {first.name} are not compared: their runs have the seeds {_seeds(group)} and "
                f"{_seeds(first)}; finish the runs of all seeds first"
            )
        sizes = {len(one.test_right) for one in (*group.repeats, *first.repeats)}
        if len(sizes) > 1:
            raise UserError(
                f"{group.name} and {first.name} were tested on {sorted(sizes)} images, which are not the same"
            )


def _seeds(runs: MaskRuns) -> str:
    return ", ".join(str(one.seed) for one in _by_seed(runs))
