"""What a run's folder holds, read as far as it can be: a report shows what there is and says what is missing."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from scipy.special import logsumexp

from vision_transfer.errors import UserError
from vision_transfer.metrics.classification import class_log_probabilities
from vision_transfer.runs.folder import RunFolder

# What reading a value raises that is not as this version writes it.
UNREADABLE = (KeyError, TypeError, ValueError, IndexError, AttributeError)
RECORD_NUMBERS = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "lr", "seconds")


@dataclass(frozen=True)
class Predictions:
    """What the run's network says of the test images.

    Attributes:
        log_probabilities: of all classes.
        labels: class numbers.
        files: name of each image.
    """

    log_probabilities: Float64[np.ndarray, "examples classes"]
    labels: Int64[np.ndarray, "examples"]
    files: tuple[str, ...]

    @cached_property
    def probabilities(self) -> Float64[np.ndarray, "examples classes"]:
        """Of all classes; rows sum to 1."""
        return np.exp(self.log_probabilities)

    @property
    def margin(self) -> Float64[np.ndarray, "examples"]:
        """Logarithm of how many times as probable the predicted class is as all others: confidence, not rounded."""
        best = self.log_probabilities.max(axis=1)
        others = self.log_probabilities.copy()
        others[np.arange(len(others)), self.predicted] = -np.inf
        return best - logsumexp(others, axis=1)

    @property
    def predicted(self) -> Int64[np.ndarray, "examples"]:
        """The class with the highest probability."""
        return self.log_probabilities.argmax(axis=1)

    @property
    def confidence(self) -> Float64[np.ndarray, "examples"]:
        """The probability of the predicted class."""
        return self.probabilities.max(axis=1)

    @property
    def right(self) -> np.ndarray:
        """Which examples are classified rightly."""
        return self.predicted == self.labels


@dataclass(frozen=True)
class RunRecord:
    """A run's folder as it stands.

    Attributes:
        folder: its paths.
        config: content of `config.json`; empty where it cannot be read, as are the next two.
        identity: of `identity.json`.
        result: of `result.json`.
        epochs: records of `metrics.jsonl`, one per stage and epoch; a number that is not there is None.
        predictions: of the test split, or None.
        missing: a sentence for each part that is not there or cannot be read.
    """

    folder: RunFolder
    config: dict[str, Any]
    identity: dict[str, Any]
    result: dict[str, Any]
    epochs: tuple[dict[str, Any], ...]
    predictions: Predictions | None
    missing: tuple[str, ...]

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return bool(self.result)

    @property
    def name(self) -> str:
        """Of the run, as its config calls it."""
        return str(self.config.get("name") or self.result.get("name") or self.folder.path.name)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; numbers where they are not recorded but predictions are."""
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
    """The value if it is a number that JSON can hold, else None."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def read_record(path: Path) -> RunRecord:
    """Reads a run's folder.

    Args:
        path: of the folder.

    Raises:
        UserError: it is no folder, or nothing in it is a run's.
    """
    folder = RunFolder(path)
    if not path.is_dir():
        raise UserError(f"--workdir={path}: there is no such folder; give a run's, such as runs/NAME-DIGEST")
    missing: list[str] = []
    config = _json(folder.config_file, "the configuration", missing)
    identity = _json(folder.identity_file, "what the run ran on", missing)
    epochs = _epochs(folder.metrics_file, missing)
    if not folder.result_file.exists():
        missing.append("result.json is not there: the run is not finished; its command goes on with it.")
        result = {}
    else:
        result = _json(folder.result_file, "the result", missing)
    if not (config or identity or epochs or result):
        raise UserError(f"--workdir={path}: is not a run's folder; it has no config.json, metrics.jsonl or result.json")
    return RunRecord(folder, config, identity, result, epochs, _predictions(folder, result, missing), tuple(missing))


def _json(file: Path, what: str, missing: list[str]) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        missing.append(f"{file.name}, {what}, is not there.")
        return {}
    except (OSError, ValueError) as error:
        missing.append(f"{file.name}, {what}, cannot be read ({error}).")
        return {}
    if isinstance(value, dict):
        return value
    missing.append(f"{file.name}, {what}, holds no JSON object.")
    return {}


def _epochs(file: Path, missing: list[str]) -> tuple[dict[str, Any], ...]:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        missing.append("metrics.jsonl is not there: no epoch has ended yet.")
        return ()
    except OSError as error:
        missing.append(f"metrics.jsonl cannot be read ({error.strerror}).")
        return ()
    records = [record for line in lines if (record := _epoch(line)) is not None]
    if len(records) < len(lines):
        missing.append(f"metrics.jsonl: {len(lines) - len(records)} of {len(lines)} lines cannot be read.")
    return tuple(records)


def _epoch(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
        whose = {"stage": str(record["stage"]), "epoch": int(record["epoch"])}
    except (ValueError, KeyError, TypeError):
        return None
    return whose | {name: number(record.get(name)) for name in RECORD_NUMBERS}


def _predictions(folder: RunFolder, result: dict[str, Any], missing: list[str]) -> Predictions | None:
    file = folder.predictions_file
    if not file.exists():
        if result:
            missing.append("predictions.npz is not there: no calibration, and no pictures of mistakes.")
        return None
    try:
        with np.load(file, allow_pickle=False) as arrays:
            logits, labels, files = arrays["logits"], arrays["labels"], arrays["files"]
        if logits.ndim != 2 or not len(logits) == len(labels) == len(files):
            raise ValueError("its arrays do not fit together")
        log_probabilities = class_log_probabilities(logits)
        if not np.isfinite(log_probabilities).all() or not np.isin(labels, range(log_probabilities.shape[1])).all():
            raise ValueError("it holds what is no logit or no label")
        return Predictions(log_probabilities, labels.astype(np.int64), tuple(map(str, files)))
    # a damaged zip raises almost anything, and the rest of the report does not need it
    except Exception as error:
        missing.append(f"predictions.npz cannot be read ({' '.join(str(error).split())}).")
        return None
