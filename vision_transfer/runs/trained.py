"""`trained.json` of a run that is trained but not tested yet, for a search, which tests only the run that it chooses.

The run itself stays unfinished: its command, given again, tests it and writes `result.json`. The file has the fields of
`result.json` that do not need a test, and in `validation` the loss, the number of images and the wrong ones' positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from vision_transfer.errors import UserError
from vision_transfer.metrics.classification import class_log_probabilities, metrics
from vision_transfer.runs.folder import RunFolder
from vision_transfer.runs.manifest import check_files
from vision_transfer.runs.predictions import read_predictions
from vision_transfer.runs.prepare import Run
from vision_transfer.runs.result import trained_facts
from vision_transfer.runtime.files import write_json
from vision_transfer.training.stage import StageOutcome


@dataclass(frozen=True)
class Validated:
    """What a trained run reached on validation, with the parameters that its test uses.

    Attributes:
        loss: mean cross-entropy in nats.
        correct: for each validation image, whether it is classified correctly.
        seconds: by activity, of all attempts at the run.
        stages: as in `result.json`.
    """

    loss: float
    correct: Bool[np.ndarray, "examples"]
    seconds: dict[str, float]
    stages: list[dict[str, Any]]

    @property
    def accuracy(self) -> float:
        """Share of correctly classified images."""
        return float(np.mean(self.correct))


def write_trained(
    run: Run,
    outcomes: Sequence[StageOutcome],
    logits: Float[np.ndarray, "examples outputs"],
    labels: Int[np.ndarray, "examples"],
) -> None:
    """Writes `trained.json` with the logits of the validation split judged."""
    found = metrics(logits, labels)
    wrong = np.flatnonzero(np.argmax(class_log_probabilities(logits), axis=1) != labels)
    validation = {"loss": found.loss, "examples": len(labels), "wrong": wrong.tolist()}
    write_json(run.folder.trained_file, trained_facts(run, outcomes) | {"validation": validation})


def read_validated(folder: RunFolder) -> Validated | None:
    """What a run reached on validation, from `trained.json` or the files of the finished run; None for neither.

    Raises:
        UserError: a file is damaged, or was changed since the run was finished.
    """
    if (result := folder.result()) is not None:
        check_files(folder, [folder.result_file, folder.predictions_file])
        saved = read_predictions(folder.predictions_file)
        if saved is None or saved.validation is None:
            return None
        logits, labels = saved.validation
        correct = np.argmax(class_log_probabilities(logits), axis=1) == labels
        return Validated(metrics(logits, labels).loss, correct, result["seconds"], result["stages"])
    if (found := folder.trained()) is None:
        return None
    try:
        validation = found["validation"]
        correct = np.ones(validation["examples"], bool)
        correct[validation["wrong"]] = False
        return Validated(float(validation["loss"]), correct, found["seconds"], found["stages"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(
            f"{folder.trained_file}: is damaged or was edited ({error!r}); remove it, and the same command writes it "
            "again from the checkpoints"
        ) from error
