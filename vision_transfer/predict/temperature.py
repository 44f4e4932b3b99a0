"""Temperature scaling (Guo et al. 2017): one number, fitted on validation, calibrates a run's probabilities.

It is fitted when first needed and kept in the run's folder.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int
from rich.markup import escape

from vision_transfer.data.load import load_dataset
from vision_transfer.errors import UserError
from vision_transfer.metrics.calibration import expected_calibration_error
from vision_transfer.metrics.classification import class_log_probabilities, metrics
from vision_transfer.models.inference import infer
from vision_transfer.runs.folder import read_json
from vision_transfer.runs.load import TrainedRun
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.devices import local_mesh
from vision_transfer.runtime.files import file_sha256, write_json

# Bounds of the search. Heads on raw VGG features can be overconfident by a factor of a hundred.
SMALLEST, LARGEST = 1e-3, 1e4

# Logits and labels of a split.
Examples = tuple[Float[np.ndarray, "examples outputs"], Int[np.ndarray, "examples"]]


@dataclass(frozen=True)
class Fit:
    """Mean negative log-likelihood (nats) and expected calibration error (15 bins), without and with a temperature."""

    examples: int
    nll: tuple[float, float]
    ece: tuple[float, float]


@dataclass(frozen=True)
class Calibration:
    """A run's temperature, the divisor of its logits, and the effect on validation, where it was fitted, and on test.

    `test` is None if the logits of the test split are missing.
    """

    temperature: float
    validation: Fit
    test: Fit | None


def probabilities(
    logits: Float[np.ndarray, "examples outputs"], temperature: float = 1.0
) -> Float64[np.ndarray, "examples classes"]:
    """Probabilities of all classes from logits divided by a temperature."""
    return np.exp(class_log_probabilities(logits.astype(np.float64) / temperature))


def fitted_temperature(logits: Float[np.ndarray, "examples outputs"], labels: Int[np.ndarray, "examples"]) -> float:
    """The temperature T that minimises the negative log-likelihood of `logits / T`.

    A network without mistakes on these examples would get T → 0 and claim certainty. So each label counts as
    (n + 1) / (n + 2) of an example of its class and 1 / (n + 2) of an example of the other classes, for n examples:
    one mistake in total (Platt 1999, section 2.2, for the same reason). The network must not have seen them in
    training.
    """
    from scipy.optimize import minimize_scalar

    mistaken = 1 / (len(labels) + 2)
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        log_probabilities = class_log_probabilities(logits.astype(np.float64) / np.exp(log_temperature))
        own = log_probabilities[rows, labels]
        others = (log_probabilities.sum(axis=1) - own) / (log_probabilities.shape[1] - 1)
        return -float(np.mean((1 - mistaken) * own + mistaken * others))

    bounds = (np.log(SMALLEST), np.log(LARGEST))
    found: Any = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def fit_of(
    logits: Float[np.ndarray, "examples outputs"], labels: Int[np.ndarray, "examples"], temperature: float
) -> Fit:
    """How well probabilities fit without and with a temperature."""
    scaled = (logits, logits.astype(np.float64) / temperature)
    before, after = (metrics(values, labels).loss for values in scaled)
    errors = [expected_calibration_error(probabilities(values), labels) for values in scaled]
    return Fit(len(labels), (before, after), (errors[0], errors[1]))


def calibration_of(run: TrainedRun, cache_dir: Path, screen: Screen) -> Calibration | None:
    """The calibration kept in a finished run's folder; fitted and kept first if there is none for its predictions.

    `predictions.npz` holds the logits of the validation split. Runs from before they were kept need their data once.
    None, after a message, if there are no validation images, or neither their logits nor the data.

    Raises:
        UserError: `predictions.npz` or `temperature.json` is damaged.
    """
    folder = run.folder
    predictions = file_sha256(folder.predictions_file) if folder.predictions_file.exists() else None
    kept = read_json(folder.temperature_file)
    if kept is not None and kept.get("predictions_sha256") == predictions:
        return _parse(kept, folder.temperature_file)
    if run.result["dataset"]["sizes"]["validation"] == 0:
        screen.say("Probabilities are not calibrated: the run had no validation images.")
        return None
    test, validation = _kept_logits(folder.predictions_file)
    validation = validation or _compute_logits(run, cache_dir, screen)
    if validation is None:
        return None
    temperature = fitted_temperature(*validation)
    test_fit = None if test is None else fit_of(*test, temperature)
    calibration = Calibration(temperature, fit_of(*validation, temperature), test_fit)
    try:
        write_json(folder.temperature_file, asdict(calibration) | {"predictions_sha256": predictions})
    except OSError as error:
        screen.say(f"{folder.temperature_file.name} cannot be kept in the run's folder: {error.strerror}.", style="dim")
    return calibration


def _parse(kept: dict[str, Any], file: Path) -> Calibration:
    try:
        temperature = float(kept["temperature"])
        if not 0 < temperature < np.inf:
            raise ValueError(f"temperature {temperature}")
        test = None if kept["test"] is None else _parse_fit(kept["test"])
        return Calibration(temperature, _parse_fit(kept["validation"]), test)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{file} is damaged or was edited ({error!r}); remove it and it is written again") from error


def _parse_fit(kept: dict[str, Any]) -> Fit:
    (nll, new_nll), (ece, new_ece) = kept["nll"], kept["ece"]
    return Fit(int(kept["examples"]), (float(nll), float(new_nll)), (float(ece), float(new_ece)))


def _kept_logits(file: Path) -> tuple[Examples | None, Examples | None]:
    """The test and the validation examples that `predictions.npz` has."""
    if not file.exists():
        return None, None
    try:
        with np.load(file, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files if name.endswith(("logits", "labels"))}
    except Exception as error:  # a damaged zip raises almost anything
        reason = " ".join(str(error).split())
        raise UserError(f"{file} is damaged ({reason}); remove it and calibration does without it") from error
    test, validation = (
        (found[f"{split}logits"], found[f"{split}labels"]) if f"{split}logits" in found else None
        for split in ("", "validation_")
    )
    return test, validation


def _compute_logits(run: TrainedRun, cache_dir: Path, screen: Screen) -> Examples | None:
    """The validation examples, if the run's data is found and unchanged."""
    why = "Probabilities are not calibrated: the run's folder does not hold its validation logits, and its data"
    try:
        dataset = load_dataset(run.config.dataset, cache_dir=cache_dir, screen=screen)
    except UserError as error:
        screen.say(escape(f"{why} cannot be read ({error})"))
        return None
    if dataset.fingerprint != run.result["dataset"]["fingerprint"]:
        screen.say(f"{why} has changed.")
        return None
    split, batch_size = dataset.validation, run.config.eval_batch_size
    return infer(run.network, run.variables, split.images, local_mesh(), batch_size=batch_size), split.labels
