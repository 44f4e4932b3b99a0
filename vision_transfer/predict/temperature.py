"""Temperature scaling (Guo et al. 2017): one number, fitted on validation, calibrates a run's probabilities.

It is fitted when a run is finished, and kept in its folder.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int

from vision_transfer.data.load import load_dataset
from vision_transfer.errors import UserError
from vision_transfer.metrics.calibration import expected_calibration_error
from vision_transfer.metrics.classification import class_log_probabilities, metrics
from vision_transfer.models.inference import infer
from vision_transfer.runs.folder import RunFolder, read_json
from vision_transfer.runs.load import TrainedRun
from vision_transfer.runs.predictions import LabelledLogits, SavedPredictions, read_predictions
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.devices import local_mesh
from vision_transfer.runtime.files import write_json

# Bounds of the search. Heads on raw VGG features can be overconfident by a factor of a hundred.
SMALLEST, LARGEST = 1e-3, 1e4
# The folds of the cross-validation, and the examples that it uses at most: with more, the fit is no accident.
FOLDS, MOST_CROSS_VALIDATED = 10, 2000
# The one-standard-error rule (Breiman et al. 1984, section 3.4.3): T = 1, the simpler choice, unless clearly worse.
LEAST_GAIN = 1.0


@dataclass(frozen=True)
class Fit:
    """Mean negative log-likelihood (nats) and expected calibration error (15 bins), without and with a temperature."""

    examples: int
    nll: tuple[float, float]
    ece: tuple[float, float]


@dataclass(frozen=True)
class Calibration:
    """A run's temperature, the divisor of its logits, and the effect on validation, where it was fitted, and on test.

    `test` is None if the logits of the test split are missing, or of other networks. `gain` is that of
    `held_out_gain`; the temperature is 1 where it is too small.
    """

    temperature: float
    validation: Fit
    test: Fit | None
    gain: float


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


def _losses(
    logits: Float[np.ndarray, "examples outputs"], labels: Int[np.ndarray, "examples"], temperature: float
) -> Float64[np.ndarray, "examples"]:
    """Negative log-likelihood of each example."""
    return -class_log_probabilities(logits.astype(np.float64) / temperature)[np.arange(len(labels)), labels]


def fit_of(
    logits: Float[np.ndarray, "examples outputs"], labels: Int[np.ndarray, "examples"], temperature: float
) -> Fit:
    """The fit of probabilities without and with a temperature."""
    scaled = (logits, logits.astype(np.float64) / temperature)
    before, after = (metrics(values, labels).loss for values in scaled)
    errors = [expected_calibration_error(probabilities(values), labels) for values in scaled]
    return Fit(len(labels), (before, after), (errors[0], errors[1]))


def held_out_gain(logits: Float[np.ndarray, "examples outputs"], labels: Int[np.ndarray, "examples"]) -> float:
    """The gain of a temperature under cross-validation, in standard errors: it is no accident from about 1 on.

    In each of ten folds a temperature is fitted without the fold; the gain of an example is the fall of its negative
    log-likelihood under the temperature of its fold. 0 with fewer than two examples.
    """
    # Rows are often in the order of their classes; the seed only has to be the same every time.
    rng = np.random.default_rng(0)
    if len(labels) > MOST_CROSS_VALIDATED:
        chosen = rng.permutation(len(labels))[:MOST_CROSS_VALIDATED]
        logits, labels = logits[chosen], labels[chosen]
    if len(labels) < 2:
        return 0.0
    fold_of = rng.permutation(len(labels)) % FOLDS
    gains = np.zeros(len(labels))
    for fold in range(min(FOLDS, len(labels))):
        held = fold_of == fold
        temperature = fitted_temperature(logits[~held], labels[~held])
        before, after = (_losses(logits[held], labels[held], value) for value in (1.0, temperature))
        gains[held] = before - after
    error = float(np.std(gains)) / np.sqrt(len(gains))
    return float(np.mean(gains) / error) if error else 0.0


def fitted_calibration(validation: LabelledLogits, test: LabelledLogits | None) -> Calibration:
    """The calibration that follows from the logits and labels of validation, and its effect on test.

    The temperature stays 1 unless cross-validation on validation shows that another one lowers the negative
    log-likelihood: fitted on a few images, all of which are right, it would claim less than the network knows.
    """
    gain = held_out_gain(*validation)
    temperature = fitted_temperature(*validation) if gain > LEAST_GAIN else 1.0
    test_fit = None if test is None or not len(test[1]) else fit_of(*test, temperature)
    return Calibration(temperature, fit_of(*validation, temperature), test_fit, gain)


def write_calibration(folder: RunFolder) -> None:
    """Writes the calibration of a run that is about to be finished, if it had validation images.

    Raises:
        UserError: `predictions.npz` is damaged.
    """
    predictions = read_predictions(folder.predictions_file)
    if predictions is not None and predictions.validation is not None:
        write_json(folder.temperature_file, asdict(fitted_calibration(predictions.validation, predictions.own_test)))


def calibration_of(run: TrainedRun, cache_dir: Path, screen: Screen) -> Calibration | None:
    """The calibration in a finished run's folder; computed again where its file was removed.

    `predictions.npz` holds the logits of the validation split; where it was removed too, the data are needed. None,
    after a message, if there are no validation images, or neither their logits nor the data.

    Raises:
        UserError: `predictions.npz` or `temperature.json` is damaged.
    """
    kept = calibration_in(run.folder, None)
    if kept is not None:
        return kept
    if run.result["dataset"]["sizes"]["validation"] == 0:
        screen.say("Probabilities are not calibrated: the run had no validation images.")
        return None
    predictions = read_predictions(run.folder.predictions_file)
    validation = None if predictions is None else predictions.validation
    validation = validation or _compute_logits(run, cache_dir, screen)
    test = None if predictions is None else predictions.own_test
    return None if validation is None else fitted_calibration(validation, test)


def calibration_in(folder: RunFolder, predictions: SavedPredictions | None) -> Calibration | None:
    """The calibration in a run's folder; where its file was removed, that of the logits of validation in `predictions`.

    None where there are no such logits either.

    Raises:
        UserError: `temperature.json` is damaged.
    """
    kept = read_json(folder.temperature_file)
    if kept is None and predictions is not None and predictions.validation is not None:
        return fitted_calibration(predictions.validation, predictions.own_test)
    return None if kept is None else _parse(kept, folder.temperature_file)


def _parse(kept: dict[str, Any], file: Path) -> Calibration:
    try:
        temperature = float(kept["temperature"])
        if not 0 < temperature < np.inf:
            raise ValueError(f"temperature {temperature}")
        test = None if kept["test"] is None else _parse_fit(kept["test"])
        return Calibration(temperature, _parse_fit(kept["validation"]), test, float(kept["gain"]))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{file} is damaged or was edited ({error!r}); remove it and it is computed again") from error


def _parse_fit(kept: dict[str, Any]) -> Fit:
    (nll, new_nll), (ece, new_ece) = kept["nll"], kept["ece"]
    return Fit(int(kept["examples"]), (float(nll), float(new_nll)), (float(ece), float(new_ece)))


def _compute_logits(run: TrainedRun, cache_dir: Path, screen: Screen) -> LabelledLogits | None:
    """The validation examples, if the run's data is found and unchanged."""
    why = "Probabilities are not calibrated: the run's folder does not hold its validation logits, and its data"
    try:
        dataset = load_dataset(run.config.dataset, cache_dir=cache_dir, screen=screen)
    except UserError as error:
        screen.say(f"{why} cannot be read ({error})")
        return None
    if dataset.fingerprint != run.result["dataset"]["fingerprint"]:
        screen.say(f"{why} has changed.")
        return None
    split, batch_size = dataset.validation, run.config.eval_batch_size
    return infer(run.network, run.variables, split.images, local_mesh(), batch_size=batch_size), split.labels
