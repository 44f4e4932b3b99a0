"""The runs of a study: the task that does one, and what a finished one has left."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vision_transfer.config import Config
from vision_transfer.errors import UserError, is_out_of_memory
from vision_transfer.metrics.calibration import expected_calibration_error
from vision_transfer.metrics.classification import class_log_probabilities
from vision_transfer.runs.folder import Identity, RunFolder
from vision_transfer.runs.manifest import check_files
from vision_transfer.runs.predictions import read_predictions
from vision_transfer.runs.prepare import RunOptions, device_text
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.provenance import json_digest, running_code_digest, versions
from vision_transfer.tasks.classic_classifier.task import classify
from vision_transfer.tasks.study.plan import PlannedRun
from vision_transfer.tasks.train.task import train

# Trains a config, or finds its finished run.
Launch = Callable[[Config, RunOptions, Screen], RunFolder]


def launch(config: Config, options: RunOptions, screen: Screen) -> RunFolder:
    """Trains the stages of a config or fits its classic classifier, or finds the finished run; returns its folder.

    Raises:
        UserError: a config, data, weights or folder that cannot be used.
        Stopped: asked to stop; the same call resumes.
    """
    try:
        return (classify if config.task == "classic_classifier" else train)(config, options, screen)
    except (RuntimeError, MemoryError) as error:
        # one run that is too large must not end a sweep; JAX has no error of its own for that
        if not is_out_of_memory(error):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{config.name}: it needs more memory than there is ({reason}); set a smaller config.batch_size or "
            "config.dataset.image_size, or freeze more"
        ) from error


@dataclass(frozen=True)
class FinishedRun:
    """A run of a study with its folder and the content of its `result.json`."""

    run: PlannedRun
    folder: Path
    result: dict[str, Any]

    @property
    def training_seconds(self) -> float:
        """Training and validation in all stages; a shared stage counts in each run that has it."""
        return sum(stage["seconds"] for stage in self.result["stages"])

    @property
    def ece(self) -> float:
        """Expected calibration error on the test split; raises as `predictions`."""
        log_probabilities, labels = self.predictions()
        return expected_calibration_error(np.exp(log_probabilities), labels)

    def predictions(self) -> tuple[Float[np.ndarray, "examples classes"], Int[np.ndarray, "examples"]]:
        """Log-probabilities and labels of the test split.

        Raises:
            UserError: `predictions.npz` is missing or damaged.
        """
        folder = RunFolder(self.folder)
        check_files(folder, [folder.predictions_file])
        found = read_predictions(folder.predictions_file)
        if found is None:
            raise UserError(
                f"{folder.predictions_file}: is missing; remove result.json in the same folder to do the run again"
            )
        return class_log_probabilities(found.test[0]), found.test[1]


def conditions(device: str | None = None) -> Identity:
    """Code, versions and device of this process, which does not open its devices where a `device` is given."""
    return Identity("", running_code_digest(), versions(), device or device_text())


def warn_of_several_conditions(finished: Sequence[FinishedRun], screen: Screen) -> None:
    """Says so if runs that are compared were computed by different code or versions, or on different devices."""
    keys = ("code_digest", "versions", "device")
    if len({json_digest([one.result.get(key) for key in keys]) for one in finished}) > 1:
        screen.say(
            "The runs were not all done by the same numeric code, versions and kind of device, so that small "
            "differences between them may come from these; --rerun does all of them again.",
            style="yellow",
        )


def read_finished(run: PlannedRun, folder: Path, now: Identity | None, *, tested: bool = True) -> FinishedRun | None:
    """The finished run in a folder; None if it is not finished or was done on other data or under conditions not `now`.

    With `now` None, any conditions will do. Unless `tested`, a run that is trained but not tested counts; its `result`
    is then `trained.json`.

    Raises:
        UserError: its files were changed since it was finished.
    """
    run_folder = RunFolder(folder)
    result, identity = run_folder.result(), run_folder.identity()
    if identity is None or (now is not None and now.differences(identity)):
        return None
    if result is None:
        trained = None if tested else run_folder.trained()
        return None if trained is None else FinishedRun(run, folder, trained)
    check_files(run_folder, [run_folder.result_file, run_folder.identity_file])
    if run.data is not None and result["dataset"]["fingerprint"] != run.data:
        return None
    return FinishedRun(run, folder, result)
