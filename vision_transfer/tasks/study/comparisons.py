"""Compares masks: validation chooses one, and a paired test on the test images compares each of the others with it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vision_transfer.errors import UserError
from vision_transfer.metrics.significance import paired_over_repeats
from vision_transfer.tasks.study.mask_runs import MaskRuns
from vision_transfer.tasks.study.statistics import holm


@dataclass(frozen=True)
class Contrast:
    """Another mask against the chosen one, on the same test images and seeds.

    Attributes:
        other: the mask.
        difference: its mean test accuracy minus the chosen one's.
        by_seed: the same for each seed.
        adjusted: p-value of `paired_over_repeats` after Holm's correction over all contrasts with the chosen mask.
        cost: its seconds as a multiple of the chosen one's.
    """

    other: MaskRuns
    difference: float
    by_seed: tuple[float, ...]
    adjusted: float
    cost: float

    def distinguishable(self, level: float) -> bool:
        """Whether both the images and the seeds tell the two apart.

        The test considers the images only. In addition no seed's difference may have the opposite sign, which can only
        make the claim rarer: with few seeds a single lucky training must not pass for a property of the mask.
        """
        return self.adjusted < level and all(one * self.difference >= 0 for one in self.by_seed)


@dataclass(frozen=True)
class Comparison:
    """The mask that validation chooses, and each other mask against it in the order given."""

    chosen: MaskRuns
    contrasts: tuple[Contrast, ...]


def compare(masks: Sequence[MaskRuns]) -> Comparison:
    """Chooses a mask by validation and compares the others with it on the test split.

    The test split plays no part in the choice, so the test accuracy of the chosen mask is not a maximum over masks, and
    the tests against the others need no correction but Holm's. Of masks with equal validation accuracies the one with
    the fewest trainable parameters is chosen.

    Raises:
        UserError: fewer than two masks, seeds that differ, or test splits of different sizes.
    """
    _check(masks)
    chosen = max(masks, key=lambda mask: (mask.validation.mean, -mask.trainable))
    others = [mask for mask in masks if mask is not chosen]
    adjusted = holm([paired_over_repeats(mask.correct, chosen.correct) for mask in others])
    contrasts = [
        Contrast(
            mask,
            mask.test.mean - chosen.test.mean,
            tuple((np.mean(mask.correct, axis=1) - np.mean(chosen.correct, axis=1)).tolist()),
            p_value,
            mask.seconds / chosen.seconds,
        )
        for mask, p_value in zip(others, adjusted, strict=True)
    ]
    return Comparison(chosen, tuple(contrasts))


def _check(masks: Sequence[MaskRuns]) -> None:
    if len(masks) < 2:
        raise UserError(f"a comparison needs finished runs of at least two masks; there are {len(masks)}")
    first = masks[0]
    for mask in masks:
        if mask.seeds != first.seeds:
            raise UserError(
                f"{mask.name} and {first.name} cannot be compared: their runs have the seeds "
                f"{', '.join(map(str, mask.seeds))} and {', '.join(map(str, first.seeds))}; finish the runs of all "
                "seeds first"
            )
        if mask.test_images != first.test_images:
            raise UserError(
                f"{mask.name} and {first.name} cannot be compared: they were tested on {mask.test_images:,} and "
                f"{first.test_images:,} images"
            )
