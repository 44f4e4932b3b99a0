"""Executes the runs of a study, each in its own run folder; finished runs are read, interrupted ones are resumed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vision_transfer.config import Config, flatten
from vision_transfer.errors import UserError
from vision_transfer.metrics.calibration import expected_calibration_error
from vision_transfer.metrics.classification import class_log_probabilities
from vision_transfer.runs.folder import Identity, RunFolder, read_json
from vision_transfer.runs.manifest import check_files
from vision_transfer.runs.predictions import read_predictions
from vision_transfer.runs.prepare import RunOptions, device_text
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.files import absolute_path, claimed_folder, write_json
from vision_transfer.runtime.provenance import code_digest, json_digest, versions
from vision_transfer.tasks.classic_classifier.task import classify
from vision_transfer.tasks.study.plan import PlannedRun, Study
from vision_transfer.tasks.train.task import train

# The folder of each run of the study, so that a finished one is found without reading its data again.
RECORD = "runs.json"
# Trains a config, or finds its finished run.
Launch = Callable[[Config, RunOptions, Screen], RunFolder]


def launch(config: Config, options: RunOptions, screen: Screen) -> RunFolder:
    """Trains the stages of a config or fits its classic classifier, or finds the finished run; returns its folder.

    Raises:
        UserError: a config, data, weights or folder that cannot be used.
        Stopped: asked to stop; the same call resumes.
    """
    return (classify if config.task == "classic_classifier" else train)(config, options, screen)


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


def conditions() -> Identity:
    """Code, versions and device of this process."""
    return Identity("", code_digest(), versions(), device_text())


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


def finished_runs(study: Study, folder: Path, options: RunOptions) -> dict[str, FinishedRun]:
    """The runs that an earlier command finished on the same data, by name.

    They must have been done with the current code, versions and device, unless `options.reuse`; with `options.rerun`
    none counts as finished.
    """
    if options.rerun:
        return {}
    record = read_json(folder / RECORD) or {}
    now = None if options.reuse else conditions()
    found: dict[str, FinishedRun] = {}
    for run in study.runs:
        entry = record.get(run.name)
        if not isinstance(entry, Mapping) or (run.start is not None and run.start not in found):
            continue
        if entry.get("config") != json_digest(flatten(_started(run, found))):
            continue
        finished = read_finished(run, Path(str(entry.get("folder"))), now)
        if finished is not None:
            found[run.name] = finished
    return found


def execute(study: Study, folder: Path, options: RunOptions, launch: Launch, screen: Screen) -> list[FinishedRun]:
    """Does all runs of a study in order; those that are finished are only read.

    `runs.json` in the study's folder records where each run is. The runs themselves are in `runs/`, where other studies
    and single commands find them too. `options` are those of every run, without `workdir`.

    Raises:
        UserError: a run fails, or the study is in use by another process.
        Stopped: asked to stop; the same call resumes.
    """
    busy = UserError(f"{folder}: this study is in use by another process; wait for it to end")
    with claimed_folder(folder, busy):
        done = finished_runs(study, folder, options)
        record = {name: _entry(finished.run, done, finished.folder) for name, finished in done.items()}
        for number, run in enumerate(study.runs, start=1):
            if run.name in done:
                continue
            screen.say()
            screen.say(f"Run {number} of {len(study.runs)}: {run.name}", style="bold")
            run_folder = launch(_started(run, done), replace(options, workdir=None), screen)
            result = run_folder.result()
            assert result is not None, "a run that returned is finished"
            done[run.name] = FinishedRun(run, run_folder.path, result)
            record[run.name] = _entry(run, done, run_folder.path)
            write_json(folder / RECORD, record)
    return [done[run.name] for run in study.runs]


def _started(run: PlannedRun, done: Mapping[str, FinishedRun]) -> Config:
    """The run's config, with the folder of the run that it starts from as `init_from`."""
    if run.start is None:
        return run.config
    return replace(run.config, init_from=absolute_path(str(done[run.start].folder)))


def _entry(run: PlannedRun, done: Mapping[str, FinishedRun], folder: Path) -> dict[str, str]:
    return {"config": json_digest(flatten(_started(run, done))), "folder": absolute_path(str(folder))}
