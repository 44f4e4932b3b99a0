"""Compares masks by their runs: validation chooses one, and a paired test on the test split compares the others."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from jaxtyping import Bool

from vision_transfer.errors import UserError
from vision_transfer.metrics.classification import wilson_interval
from vision_transfer.metrics.significance import paired_over_repeats
from vision_transfer.tasks.study.plan import SEED, Label
from vision_transfer.tasks.study.runs import FinishedRun
from vision_transfer.tasks.study.statistics import Summary, holm, summarised

# Of the tests, after the correction.
LEVEL = 0.05


@dataclass(frozen=True)
class MaskRuns:
    """The runs of one mask, one for each seed and in the order of the seeds.

    Attributes:
        name: of the mask in sentences, such as `below:block5_conv1`.
        seeds: runs of two masks with the same seed are a pair.
        correct: whether each run classifies each test image correctly.
        validation_accuracies: of the parameters that were tested, each on `validation_examples` images.
        run_seconds: `training_seconds` of each run.
        trainable: parameters that train.
    """

    name: str
    seeds: tuple[Label, ...]
    correct: Bool[np.ndarray, "seeds examples"]
    validation_accuracies: tuple[float, ...]
    run_seconds: tuple[float, ...]
    trainable: int
    validation_examples: int

    @property
    def test(self) -> Summary:
        """Test accuracy over seeds."""
        return summarised([float(np.mean(of_seed)) for of_seed in self.correct])

    @property
    def validation(self) -> Summary:
        """Validation accuracy over seeds."""
        return summarised(self.validation_accuracies)

    @property
    def test_images(self) -> int:
        """The number of images that each run was tested on."""
        return self.correct.shape[1]

    @property
    def test_interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the mean test accuracy, for the test images: more seeds are not more images."""
        return wilson_interval(round(self.test.mean * self.test_images), self.test_images)

    @property
    def seconds(self) -> float:
        """Median over the runs, which a single run on a busy machine does not shift."""
        return median(self.run_seconds)


@dataclass(frozen=True)
class Contrast:
    """Another mask against a chosen one, on the same test images and seeds.

    Attributes:
        other: the mask.
        difference: its mean test accuracy minus the chosen one's.
        by_seed: the same for each seed.
        adjusted: p-value of `paired_over_repeats` after Holm's correction over all contrasts made together.
        cost: its seconds as a multiple of the chosen one's.
    """

    other: MaskRuns
    difference: float
    by_seed: tuple[float, ...]
    adjusted: float
    cost: float

    @property
    def distinguishable(self) -> bool:
        """Whether both the images and the seeds tell the two apart.

        The test considers the images only. In addition no seed's difference may have the opposite sign, which can only
        make the claim rarer: with few seeds a single lucky training must not pass for a property of the mask.
        """
        return self.adjusted < LEVEL and all(one * self.difference >= 0 for one in self.by_seed)


@dataclass(frozen=True)
class Comparison:
    """The mask that validation chooses, and each other mask against it in the order given."""

    chosen: MaskRuns
    contrasts: tuple[Contrast, ...]


def mask_runs(name: str, finished: Sequence[FinishedRun]) -> MaskRuns:
    """Reads one or more runs of a mask from their results and `predictions.npz`.

    Raises:
        UserError: the predictions are missing or damaged, or a run has no validation.
    """
    runs = sorted(finished, key=lambda run: str(run.run.labels[SEED]))
    accuracies = [run.result["tested"]["validation"]["accuracy"] for run in runs]
    if None in accuracies:
        raise UserError(f"{runs[accuracies.index(None)].folder}: no validation accuracy, by which masks are chosen")
    predictions = [run.predictions() for run in runs]
    result = runs[0].result
    return MaskRuns(
        name,
        tuple(run.run.labels[SEED] for run in runs),
        np.stack([np.argmax(log_probabilities, axis=1) == labels for log_probabilities, labels in predictions]),
        tuple(accuracies),
        tuple(run.training_seconds for run in runs),
        result["parameters"]["trainable"],
        _validation_images(runs[0]),
    )


def _validation_images(run: FinishedRun) -> int:
    """The number of images on which the tested stage was validated."""
    config, images = run.run.config, int(run.result["dataset"]["sizes"]["validation"])
    steps = config.stages[run.result["tested"]["stage"]].validation_steps
    return images if steps is None else min(images, steps * config.eval_batch_size)


def compare(masks: Sequence[MaskRuns]) -> Comparison:
    """Chooses a mask by validation and compares the others with it on the test split.

    The test split plays no part in the choice, so the test accuracy of the chosen mask is not a maximum over masks, and
    the tests against the others need no correction but Holm's. Of masks with equal validation accuracies the one with
    the fewest trainable parameters is chosen.

    Raises:
        UserError: fewer than two masks, seeds that differ, or test splits of different sizes.
    """
    if len(masks) < 2:
        raise UserError(f"a comparison needs finished runs of at least two masks; there are {len(masks)}")
    # the same numbers of right answers in another order of seeds have means that differ by rounding
    chosen = max(masks, key=lambda mask: (round(mask.validation.mean, 12), -mask.trainable))
    return Comparison(chosen, contrasts([(mask, chosen) for mask in masks if mask is not chosen]))


def contrasts(pairs: Sequence[tuple[MaskRuns, MaskRuns]]) -> tuple[Contrast, ...]:
    """The first of each pair against the second.

    Raises:
        UserError: seeds that differ, or test splits of different sizes.
    """
    for pair in pairs:
        _check(*pair)
    adjusted = holm([paired_over_repeats(other.correct, chosen.correct) for other, chosen in pairs])
    return tuple(
        Contrast(
            other,
            other.test.mean - chosen.test.mean,
            tuple((np.mean(other.correct, axis=1) - np.mean(chosen.correct, axis=1)).tolist()),
            p_value,
            other.seconds / chosen.seconds,
        )
        for (other, chosen), p_value in zip(pairs, adjusted, strict=True)
    )


def _check(first: MaskRuns, second: MaskRuns) -> None:
    pair = f"{first.name} and {second.name} cannot be compared: "
    if first.seeds != second.seeds:
        seeds = [", ".join(map(str, one.seeds)) for one in (first, second)]
        raise UserError(f"{pair}their runs have the seeds {' and '.join(seeds)}; finish the runs of all seeds first")
    if first.test_images != second.test_images:
        raise UserError(f"{pair}they were tested on {first.test_images:,} and {second.test_images:,} images")
