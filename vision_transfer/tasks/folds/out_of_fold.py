"""The predictions of all folds' runs together: each image once, by a run that has not seen it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from vision_transfer.errors import UserError
from vision_transfer.metrics.classification import TestResult
from vision_transfer.metrics.cross_validation import evaluate_out_of_fold
from vision_transfer.predict.temperature import kept_calibration, probabilities
from vision_transfer.runs.folder import RunFolder
from vision_transfer.runs.manifest import check_files
from vision_transfer.runs.predictions import OutOfFold, read_predictions
from vision_transfer.tasks.study.runs import FinishedRun
from vision_transfer.tasks.study.tables import Row

FOLD = "fold"


@dataclass(frozen=True)
class Folds:
    """The finished runs of all folds, and their predictions in the order of the folds.

    `probabilities` are of all classes, by the temperature of each run.
    """

    runs: tuple[FinishedRun, ...]
    predictions: OutOfFold
    probabilities: Float64[np.ndarray, "examples classes"]

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return self.runs[0].result["dataset"]["classes"]

    @property
    def found(self) -> TestResult:
        """Metrics over the images of all folds."""
        return evaluate_out_of_fold(self.predictions.logits, self.predictions.labels, self.predictions.folds)


def read_folds(finished: Sequence[FinishedRun]) -> Folds:
    """Reads the predictions of the runs of all folds, which are given in the order of the folds.

    Raises:
        UserError: a file of a run is missing, damaged or edited.
    """
    saved = []
    for one in finished:
        folder = RunFolder(one.folder)
        check_files(folder, [folder.predictions_file, folder.temperature_file])
        found = read_predictions(folder.predictions_file)
        if found is None or not found.files:
            raise UserError(f"{folder.predictions_file}: is missing; --rerun does the folds again")
        calibration = kept_calibration(folder)
        saved.append((found, 1.0 if calibration is None else calibration.temperature))
    predictions = OutOfFold(
        np.concatenate([found.test[0] for found, _ in saved]),
        np.concatenate([found.test[1] for found, _ in saved]),
        tuple(file for found, _ in saved for file in found.files),
        np.repeat(np.arange(len(saved)), [len(found.files) for found, _ in saved]),
    )
    return Folds(
        tuple(finished), predictions, np.concatenate([probabilities(one.test[0], scale) for one, scale in saved])
    )


def image_rows(folds: Folds) -> list[Row]:
    """A row for each image, the least probable labels first: mistakes of the network, or of the labels."""
    classes, predictions, chances = folds.classes, folds.predictions, folds.probabilities
    of_label = chances[np.arange(len(chances)), predictions.labels]
    return [
        {
            "file": predictions.files[place],
            FOLD: int(predictions.folds[place]),
            "label": classes[predictions.labels[place]],
            "class": classes[int(chances[place].argmax())],
            "probability of label": f"{of_label[place]:.6f}",
            **{f"probability_{name}": f"{chance:.6f}" for name, chance in zip(classes, chances[place], strict=True)},
        }
        for place in np.lexsort((np.array(predictions.files), of_label))
    ]
