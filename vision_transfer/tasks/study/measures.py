"""What tables and statistics need of a finished run and `result.json` does not say outright."""

import numpy as np
from jaxtyping import Float, Int

from vision_transfer.errors import UserError
from vision_transfer.metrics.calibration import expected_calibration_error
from vision_transfer.metrics.classification import class_log_probabilities
from vision_transfer.runs.folder import RunFolder
from vision_transfer.tasks.study.runs import FinishedRun


def test_predictions(
    finished: FinishedRun,
) -> tuple[Float[np.ndarray, "examples classes"], Int[np.ndarray, " examples"]]:
    """Log-probabilities and labels of a run's test split.

    Raises:
        UserError: its `predictions.npz` is gone or damaged.
    """
    file = RunFolder(finished.folder).predictions_file
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return class_log_probabilities(arrays["logits"]), arrays["labels"]
    except Exception as error:  # a damaged zip raises almost anything
        raise UserError(
            f"{file}: cannot be read ({' '.join(str(error).split())}); remove result.json beside it, and the run is "
            "done again"
        ) from error


def run_ece(finished: FinishedRun) -> float:
    """Expected calibration error of a run on the test split.

    Raises:
        UserError: its predictions are gone or damaged.
    """
    log_probabilities, labels = test_predictions(finished)
    return expected_calibration_error(np.exp(log_probabilities), labels)


def run_seconds(finished: FinishedRun) -> float:
    """Training and validation in all stages of a run, those that it took from another run included."""
    return sum(stage["seconds"] for stage in finished.result["stages"])
