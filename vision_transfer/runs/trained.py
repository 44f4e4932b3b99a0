"""`trained.json` of a run that is trained but not tested yet, for a search, which tests only the run that it chooses.

The run itself stays unfinished: its command, given again, tests it and writes `result.json`. The file has the fields of
`result.json` that do not need a test, and in `validation` the loss, the number of images and the wrong ones' positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

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
class Judged:
    """The loss and the answers of a trained run, or of the runs of all folds, on the images that runs are compared on.

    Attributes:
        loss: mean cross-entropy in nats.
        correct: for each image, whether it is classified correctly.
        seconds: by activity, of all attempts.
        epoch_seconds: of an epoch of the last stage, see `result.epoch_seconds`.
    """

    loss: float
    correct: Bool[np.ndarray, "examples"]
    seconds: dict[str, float]
    epoch_seconds: float


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


def read_judged(folder: RunFolder, *, by_test: bool = False) -> Judged | None:
    """A run's validation, from `trained.json` or the files of the finished run; None for neither.

    With `by_test`, what a finished run reached on its test split: a fold's run on the images that it has not seen.

    Raises:
        UserError: a file is damaged, or was changed since the run was finished.
    """
    if (result := folder.result()) is not None:
        check_files(folder, [folder.result_file, folder.predictions_file])
        saved = read_predictions(folder.predictions_file)
        if saved is None or (split := saved.test if by_test else saved.validation) is None:
            return None
        logits, labels = split
        correct = np.argmax(class_log_probabilities(logits), axis=1) == labels
        return Judged(metrics(logits, labels).loss, correct, result["seconds"], result["stages"][-1]["epoch_seconds"])
    if by_test or (found := folder.trained()) is None:
        return None
    try:
        validation = found["validation"]
        correct = np.ones(validation["examples"], bool)
        correct[validation["wrong"]] = False
        return Judged(float(validation["loss"]), correct, found["seconds"], found["stages"][-1]["epoch_seconds"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(
            f"{folder.trained_file}: is damaged or was edited ({error!r}); remove it, and the same command writes it "
            "again from the checkpoints"
        ) from error


def joined(parts: Sequence[Judged]) -> Judged:
    """The runs of all folds as one: their images one after the other, and the sums of their times."""
    images = sum(len(part.correct) for part in parts)
    return Judged(
        sum(part.loss * len(part.correct) for part in parts) / images,
        np.concatenate([part.correct for part in parts]),
        {name: sum(part.seconds[name] for part in parts) for name in parts[0].seconds},
        sum(part.epoch_seconds for part in parts),
    )
