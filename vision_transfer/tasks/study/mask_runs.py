"""The finished runs of one mask, as what statistics need of them: which test images each seed's network gets right."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from vision_transfer.errors import UserError
from vision_transfer.tasks.study.measures import run_seconds, test_predictions
from vision_transfer.tasks.study.plan import Label
from vision_transfer.tasks.study.runs import FinishedRun


@dataclass(frozen=True)
class Repeat:
    """One finished run of a mask.

    Attributes:
        seed: what it is repeated over; runs of two masks with the same seed are a pair.
        validation_accuracy: of the parameters that were tested.
        test_right: whether each test image is classified rightly, in the order of the test split.
        seconds: of training and validation in all stages, a shared stage counted in each run that has it.
    """

    seed: Label
    validation_accuracy: float
    test_right: Bool[np.ndarray, "examples"]
    seconds: float


@dataclass(frozen=True)
class MaskRuns:
    """The runs of one mask, which differ in the seed alone.

    Attributes:
        name: of the mask in sentences, such as `below:block5_conv1`.
        repeats: the runs, one or more.
        trainable: parameters that train.
        validation_examples: images behind each validation accuracy.
    """

    name: str
    repeats: tuple[Repeat, ...]
    trainable: int
    validation_examples: int


def mask_runs(name: str, finished: Sequence[FinishedRun], over: str = "seed") -> MaskRuns:
    """Reads the runs of one mask from their results and `predictions.npz`.

    Args:
        name: of the mask.
        finished: its runs, one or more.
        over: the label that repeats a run.

    Raises:
        UserError: predictions that are gone or damaged, or a run without validation.
    """
    result = finished[0].result
    return MaskRuns(
        name,
        tuple(_repeat(one, over) for one in finished),
        result["parameters"]["trainable"],
        result["dataset"]["sizes"]["validation"],
    )


def _repeat(finished: FinishedRun, over: str) -> Repeat:
    validation = finished.result["tested"]["validation"]["accuracy"]
    if validation is None:
        raise UserError(f"{finished.folder}: has no validation accuracy, by which masks are chosen")
    log_probabilities, labels = test_predictions(finished)
    return Repeat(
        finished.run.labels[over],
        validation,
        np.argmax(log_probabilities, axis=1) == labels,
        run_seconds(finished),
    )
