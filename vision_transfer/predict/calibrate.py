"""The temperature of a run: fitted on its validation split when it is first needed, and kept in its folder."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape

from vision_transfer.data.load import load_dataset
from vision_transfer.errors import UserError
from vision_transfer.models.inference import infer
from vision_transfer.predict.temperature import Fit, fit_of, fitted_temperature
from vision_transfer.runs.build import data_request
from vision_transfer.runs.folder import read_json
from vision_transfer.runs.load import TrainedRun
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.devices import local_mesh
from vision_transfer.runtime.files import file_sha256, write_json

Examples = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Calibration:
    """A run's temperature, and what it does.

    Attributes:
        temperature: what logits are divided by.
        validation: on the examples that it was fitted on.
        test: on the test split, which had no say in it; None where its logits are gone.
    """

    temperature: float
    validation: Fit
    test: Fit | None


def calibration_of(run: TrainedRun, cache_dir: Path, screen: Screen) -> Calibration | None:
    """The calibration kept in the run's folder, or one that is fitted now and kept there.

    The logits of the validation split are in `predictions.npz`; a run that was finished before they were kept needs
    its data once.

    Args:
        run: finished.
        cache_dir: root of all caches.
        screen: told where nothing can be fitted.

    Returns:
        None where there are no validation images, or neither their logits nor the data.

    Raises:
        UserError: `predictions.npz` or `temperature.json` is damaged.
    """
    folder = run.folder
    predictions = file_sha256(folder.predictions_file) if folder.predictions_file.exists() else None
    kept = read_json(folder.temperature_file)
    if kept is not None and kept.get("predictions_sha256") == predictions:
        return _read(kept, folder.temperature_file)
    if run.result["dataset"]["sizes"]["validation"] == 0:
        screen.say("Probabilities are as the network gives them: the run had no validation images to calibrate by.")
        return None
    test, validation = _kept_logits(folder.predictions_file)
    validation = validation or _computed_logits(run, cache_dir, screen)
    if validation is None:
        return None
    temperature = fitted_temperature(*validation)
    calibration = Calibration(
        temperature, fit_of(*validation, temperature), None if test is None else fit_of(*test, temperature)
    )
    try:
        write_json(folder.temperature_file, asdict(calibration) | {"predictions_sha256": predictions})
    except OSError as error:
        screen.say(f"{folder.temperature_file.name} is not kept in the run's folder: {error.strerror}.", style="dim")
    return calibration


def say_calibration(calibration: Calibration, screen: Screen) -> None:
    """The temperature with likelihood and calibration error before and after."""
    screen.say(f"Calibrated: logits are divided by the temperature {calibration.temperature:.3f}.")
    for split, fit in (("validation, which it was fitted on", calibration.validation), ("test", calibration.test)):
        if fit is not None:
            (nll, new_nll), (ece, new_ece) = fit.nll, fit.ece
            screen.say(
                f"  {split} ({fit.examples:,} images): negative log-likelihood {nll:.4f} → {new_nll:.4f}, "
                f"calibration error {ece:.4f} → {new_ece:.4f}"
            )


def _read(kept: dict[str, Any], file: Path) -> Calibration:
    try:
        fits = [None if kept[split] is None else _fit(kept[split]) for split in ("validation", "test")]
        temperature = float(kept["temperature"])
        if fits[0] is None or not 0 < temperature < np.inf:
            raise ValueError("no temperature")
        return Calibration(temperature, fits[0], fits[1])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file}: is not as it was written ({error!r}); remove it, and it is made again") from error


def _fit(kept: dict[str, Any]) -> Fit:
    (nll, new_nll), (ece, new_ece) = kept["nll"], kept["ece"]
    return Fit(int(kept["examples"]), (float(nll), float(new_nll)), (float(ece), float(new_ece)))


def _kept_logits(file: Path) -> tuple[Examples | None, Examples | None]:
    """Logits and labels of test and validation, as far as `predictions.npz` has them."""
    if not file.exists():
        return None, None
    try:
        with np.load(file, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files if name.endswith(("logits", "labels"))}
    except Exception as error:  # a damaged zip raises almost anything
        raise UserError(
            f"{file}: is damaged ({' '.join(str(error).split())}); remove it, and calibration does without it"
        ) from error
    test, validation = (
        (found[f"{split}logits"], found[f"{split}labels"]) if f"{split}logits" in found else None
        for split in ("", "validation_")
    )
    return test, validation


def _computed_logits(run: TrainedRun, cache_dir: Path, screen: Screen) -> Examples | None:
    """Logits and labels of the validation split, if the data is there and is that of the run."""
    why = (
        "Probabilities are as the network gives them, not calibrated: the run's folder does not hold its validation "
        "logits, and the data"
    )
    try:
        dataset = load_dataset(data_request(run.config), cache_dir=cache_dir, screen=screen)
    except UserError as error:
        screen.say(escape(f"{why} cannot be read ({error})"))
        return None
    if dataset.fingerprint != run.result["dataset"]["fingerprint"]:
        screen.say(f"{why} has changed since.")
        return None
    split, batch_size = dataset.validation, run.config.eval_batch_size
    return infer(run.network, run.variables, split.images, local_mesh(), batch_size=batch_size), split.labels
