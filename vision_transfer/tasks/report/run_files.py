"""The files of a run's folder, read as far as possible: a report shows what is there and lists what is missing."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from vision_transfer.errors import UserError
from vision_transfer.metrics.classification import class_log_probabilities
from vision_transfer.metrics.ranking import log_odds
from vision_transfer.predict.decision import Decision, kept_decision
from vision_transfer.predict.temperature import calibration_in
from vision_transfer.runs.folder import RunFolder
from vision_transfer.runs.manifest import check_files
from vision_transfer.runs.predictions import read_predictions
from vision_transfer.runtime.files import read_json

# Errors from using a value that is not of the type or shape that this version writes.
UNREADABLE = (KeyError, TypeError, ValueError, IndexError, AttributeError)
# Whatever uses the run's parameters or compares its numbers refuses it; a page can say it.
NO_MANIFEST = "manifest.json is missing: nothing shows whether these numbers are the ones that the run wrote."
EPOCH_NUMBERS = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "lr", "seconds")


@dataclass(frozen=True)
class Predictions:
    """Predictions for the test images: log-probabilities of all classes, labels, and name of each image.

    The log-probabilities are those of the logits divided by the run's `temperature`, as in `--mode=predict`; with
    `is_out_of_fold` those of the networks of folds, for which it does not hold, without one.
    """

    log_probabilities: Float64[np.ndarray, "examples classes"]
    labels: Int64[np.ndarray, "examples"]
    files: tuple[str, ...]
    temperature: float = 1.0
    is_out_of_fold: bool = False

    @cached_property
    def probabilities(self) -> Float64[np.ndarray, "examples classes"]:
        """Of all classes, calibrated if the run is; rows sum to 1."""
        return np.exp(self.log_probabilities)

    @cached_property
    def predicted(self) -> Int64[np.ndarray, "examples"]:
        """The class with the highest probability."""
        return self.log_probabilities.argmax(axis=1)

    @cached_property
    def confidence(self) -> Float64[np.ndarray, "examples"]:
        """The probability of the predicted class."""
        return self.probabilities.max(axis=1)

    @cached_property
    def margin(self) -> Float64[np.ndarray, "examples"]:
        """Log-odds of the predicted class: confidence without rounding to 1."""
        return log_odds(self.log_probabilities)[np.arange(len(self.predicted)), self.predicted]

    @cached_property
    def right(self) -> Bool[np.ndarray, "examples"]:
        """Whether each example is classified correctly."""
        return self.predicted == self.labels


@dataclass(frozen=True)
class RunFiles:
    """Contents of a run's folder: the JSON files, each empty where it cannot be read, and the test's predictions.

    `epochs` are the lines of `metrics.jsonl`, where a missing number is None; `missing` has a sentence for each part
    that is missing or cannot be read.
    """

    folder: RunFolder
    config: dict[str, Any]
    identity: dict[str, Any]
    result: dict[str, Any]
    epochs: tuple[dict[str, Any], ...]
    predictions: Predictions | None
    missing: tuple[str, ...]
    decision: Decision | None = None

    @property
    def finished(self) -> bool:
        """Whether the run has a result."""
        return bool(self.result)

    @property
    def name(self) -> str:
        """The run's name in its config."""
        return str(self.config.get("name") or self.result.get("name") or self.folder.path.name)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; numbers where only predictions are recorded."""
        named = get(self.result, "dataset", "classes")
        if isinstance(named, list):
            return tuple(map(str, named))
        return () if self.predictions is None else tuple(map(str, range(self.predictions.probabilities.shape[1])))


def get(values: Any, *path: str) -> Any:
    """The value at a path of nested JSON objects, or None where any part of it is missing."""
    for name in path:
        if not isinstance(values, dict):
            return None
        values = values.get(name)
    return values


def number(value: Any) -> float | None:
    """The value as a float, or None if it is not a JSON number."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def read_run_files(path: Path) -> RunFiles:
    """Reads a run's folder.

    Raises:
        UserError: the folder does not exist, nothing in it is a run's, or a finished run's files were changed.
    """
    folder = RunFolder(path)
    if not path.is_dir():
        raise UserError(f"--workdir={path}: there is no such folder; give a run's, such as runs/NAME-DIGEST")
    folder.check_links()
    missing: list[str] = []
    if folder.result_file.exists():
        if folder.manifest_file.exists():
            check_files(folder)
        else:
            missing.append(NO_MANIFEST)
    config = _read_object(folder.config_file, "the configuration", missing)
    identity = _read_object(folder.identity_file, "the versions and the device", missing)
    epochs = _read_epochs(folder.metrics_file, missing)
    result = {}
    if folder.result_file.exists():
        result = _read_object(folder.result_file, "the result", missing)
    else:
        missing.append("result.json is missing: the run is not finished; its command resumes it.")
    if not (config or identity or epochs or result):
        raise UserError(f"--workdir={path}: is not a run's folder; it has no config.json, metrics.jsonl or result.json")
    predictions = _read_predictions(folder, bool(result), missing)
    decision = None
    try:
        decision = kept_decision(folder)
    except UserError as error:
        missing.append(f"{error}.")
    return RunFiles(folder, config, identity, result, epochs, predictions, tuple(missing), decision)


def _read_object(file: Path, what: str, missing: list[str]) -> dict[str, Any]:
    problem = "is not a JSON object"
    try:
        value = read_json(file)
        if isinstance(value, dict):
            return value
    except FileNotFoundError:
        problem = "is missing"
    except (OSError, ValueError) as error:
        problem = f"cannot be read ({error})"
    missing.append(f"{file.name}, {what}, {problem}.")
    return {}


def _read_epochs(file: Path, missing: list[str]) -> tuple[dict[str, Any], ...]:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        missing.append("metrics.jsonl is missing: no epoch has ended yet.")
        return ()
    except OSError as error:
        missing.append(f"metrics.jsonl cannot be read ({error.strerror}).")
        return ()
    epochs = [epoch for line in lines if (epoch := _epoch(line)) is not None]
    if len(epochs) < len(lines):
        missing.append(f"metrics.jsonl: {len(lines) - len(epochs)} of {len(lines)} lines cannot be read.")
    return tuple(epochs)


def _epoch(line: str) -> dict[str, Any] | None:
    try:
        values = json.loads(line)
        key = {"stage": str(values["stage"]), "epoch": int(values["epoch"])}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return key | {name: number(values.get(name)) for name in EPOCH_NUMBERS}


def _read_predictions(folder: RunFolder, finished: bool, missing: list[str]) -> Predictions | None:
    file = folder.predictions_file
    if not file.exists():
        if finished:
            missing.append("predictions.npz is missing: no calibration, and no images of mistakes.")
        return None
    try:
        found = read_predictions(file)
        calibration = None if found is None or found.is_out_of_fold else calibration_in(folder, found)
    except UserError as error:
        missing.append(f"predictions.npz cannot be read: {error}.")
        return None
    assert found is not None, "it exists"
    if not found.files:
        missing.append("predictions.npz has no names of files: no calibration, and no images of mistakes.")
        return None
    temperature = 1.0 if calibration is None else calibration.temperature
    logits, labels = found.test
    scaled = class_log_probabilities(logits / temperature)
    return Predictions(scaled, labels, found.files, temperature, found.is_out_of_fold)
