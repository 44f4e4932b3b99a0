"""The finished runs of one mask: which test images each seed's network classifies correctly, and what a run costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from jaxtyping import Bool, Float, Int

from vision_transfer.errors import UserError
from vision_transfer.metrics.calibration import expected_calibration_error
from vision_transfer.metrics.classification import class_log_probabilities, wilson_interval
from vision_transfer.runs.folder import RunFolder
from vision_transfer.tasks.study.plan import Label
from vision_transfer.tasks.study.runs import FinishedRun
from vision_transfer.tasks.study.statistics import Summary, summarised


@dataclass(frozen=True)
class MaskRuns:
    """The runs of one mask, one for each seed and in the order of the seeds.

    Attributes:
        name: of the mask in sentences, such as `below:block5_conv1`.
        seeds: runs of two masks with the same seed are a pair.
        correct: whether each run classifies each test image correctly.
        validation_accuracies: of the parameters that were tested, each on `validation_examples` images.
        run_seconds: see the function of that name.
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
        """How many images each run was tested on."""
        return self.correct.shape[1]

    @property
    def test_interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the mean test accuracy, for the test images: more seeds are not more images."""
        return wilson_interval(round(self.test.mean * self.test_images), self.test_images)

    @property
    def seconds(self) -> float:
        """Median over the runs, which a single run on a busy machine does not shift."""
        return median(self.run_seconds)


def mask_runs(name: str, finished: Sequence[FinishedRun], over: str) -> MaskRuns:
    """Reads one or more runs of a mask from their results and `predictions.npz`; `over` is the label of the seed.

    Raises:
        UserError: the predictions are missing or damaged, or a run has no validation.
    """
    runs = sorted(finished, key=lambda run: str(run.run.labels[over]))
    accuracies = [run.result["tested"]["validation"]["accuracy"] for run in runs]
    if None in accuracies:
        raise UserError(f"{runs[accuracies.index(None)].folder}: no validation accuracy, by which masks are chosen")
    predictions = [test_predictions(run) for run in runs]
    result = runs[0].result
    return MaskRuns(
        name,
        tuple(run.run.labels[over] for run in runs),
        np.stack([np.argmax(log_probabilities, axis=1) == labels for log_probabilities, labels in predictions]),
        tuple(accuracies),
        tuple(map(run_seconds, runs)),
        result["parameters"]["trainable"],
        result["dataset"]["sizes"]["validation"],
    )


def test_predictions(
    finished: FinishedRun,
) -> tuple[Float[np.ndarray, "examples classes"], Int[np.ndarray, " examples"]]:
    """Log-probabilities and labels of a run's test split.

    Raises:
        UserError: its `predictions.npz` is missing or damaged.
    """
    file = RunFolder(finished.folder).predictions_file
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return class_log_probabilities(arrays["logits"]), arrays["labels"]
    except Exception as error:  # a damaged zip raises almost anything
        raise UserError(
            f"{file}: cannot be read ({' '.join(str(error).split())}); remove result.json in the same folder to do the "
            "run again"
        ) from error


def run_ece(finished: FinishedRun) -> float:
    """Expected calibration error of a run on the test split; raises as `test_predictions`."""
    log_probabilities, labels = test_predictions(finished)
    return expected_calibration_error(np.exp(log_probabilities), labels)


def run_seconds(finished: FinishedRun) -> float:
    """Training and validation in all stages of a run; a shared stage counts in each run that has it."""
    return sum(stage["seconds"] for stage in finished.result["stages"])
