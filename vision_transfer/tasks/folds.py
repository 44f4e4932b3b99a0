"""Cross-validation of a training config: `--config.dataset.folds=5` with any config that trains.

    folds.json       metrics over all images, each predicted once by a run that has not seen it, and the runs' folders
    images.csv       a row for each image: its fold, label, class and probabilities, the doubtful ones first
    classes.csv      precision, recall and F1 of each class over all images
    figures/         the confusion matrix
    and the files of a sweep, by which workers share the folds

The run of a fold and the final run, on the images of all folds, are in `runs/`, where other commands find them too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from vision_transfer.config import Config
from vision_transfer.errors import UserError
from vision_transfer.metrics.classification import TestResult
from vision_transfer.metrics.cross_validation import evaluate_out_of_fold
from vision_transfer.predict.temperature import calibration_in, probabilities
from vision_transfer.runs.folder import RunFolder, default_folder
from vision_transfer.runs.manifest import check_files
from vision_transfer.runs.predictions import OutOfFold, read_predictions
from vision_transfer.runs.prepare import RunOptions
from vision_transfer.runs.result import split_metrics
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.files import absolute_path, claimed_folder, write_json
from vision_transfer.tasks.ablation.all_runs import SHARED_STAGES, all_finished, do_all
from vision_transfer.tasks.ablation.launchers import read_launcher
from vision_transfer.tasks.ablation.sweep import SweepFolder, forget
from vision_transfer.tasks.figures import draw_or_say_why
from vision_transfer.tasks.report.confusion import draw_confusion
from vision_transfer.tasks.study.plan import PlannedRun, Study, check_study, with_fingerprints
from vision_transfer.tasks.study.runs import FinishedRun, launch, warn_of_several_conditions
from vision_transfer.tasks.tables import Row, interval_text, screen_table, write_csv

FOLD = "fold"
RESULT, IMAGES, CLASSES, CONFUSION = "folds.json", "images.csv", "classes.csv", "figures/confusion.png"


@dataclass(frozen=True)
class Folds:
    """The finished runs of all folds, and their predictions in the order of the folds.

    `probabilities` are of all classes, by the temperature of each run.
    """

    runs: tuple[FinishedRun, ...]
    predictions: OutOfFold
    probabilities: Float64[np.ndarray, "examples classes"]

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return self.runs[0].result["dataset"]["classes"]

    @property
    def found(self) -> TestResult:
        """Metrics over the images of all folds."""
        return evaluate_out_of_fold(self.predictions.logits, self.predictions.labels, self.predictions.folds)


def read_folds(finished: Sequence[FinishedRun]) -> Folds:
    """Reads the predictions of the runs of all folds, which are given in the order of the folds.

    Raises:
        UserError: a file of a run is missing, damaged or edited.
    """
    saved = []
    for one in finished:
        folder = RunFolder(one.folder)
        check_files(folder, [folder.predictions_file, folder.temperature_file])
        found = read_predictions(folder.predictions_file)
        if found is None or not found.files:
            raise UserError(f"{folder.predictions_file}: is missing; --rerun does the folds again")
        calibration = calibration_in(folder, found)
        saved.append((found, 1.0 if calibration is None else calibration.temperature))
    predictions = OutOfFold(
        np.concatenate([found.test[0] for found, _ in saved]),
        np.concatenate([found.test[1] for found, _ in saved]),
        tuple(file for found, _ in saved for file in found.files),
        np.repeat(np.arange(len(saved)), [len(found.files) for found, _ in saved]),
    )
    return Folds(
        tuple(finished), predictions, np.concatenate([probabilities(one.test[0], scale) for one, scale in saved])
    )


def image_rows(folds: Folds) -> list[Row]:
    """A row for each image, the least probable labels first: mistakes of the network, or of the labels."""
    classes, predictions, chances = folds.classes, folds.predictions, folds.probabilities
    of_label = chances[np.arange(len(chances)), predictions.labels]
    return [
        {
            "file": predictions.files[place],
            FOLD: int(predictions.folds[place]),
            "label": classes[predictions.labels[place]],
            "class": classes[int(chances[place].argmax())],
            "probability of label": f"{of_label[place]:.6f}",
            **{f"probability_{name}": f"{chance:.6f}" for name, chance in zip(classes, chances[place], strict=True)},
        }
        for place in np.lexsort((np.array(predictions.files), of_label))
    ]


def cross_validate(config: Config, options: RunOptions, screen: Screen, launcher: str | None = None) -> Path:
    """Does the runs of all folds and the final one, or what remains of them; returns the final run's folder.

    `options` are those of every run, with the folder of the cross-validation as `workdir`; for `launcher` see
    `read_launcher`. The final run is done by this process.

    Raises:
        UserError: an invalid config or unusable data, folds that the data does not allow, or failed runs.
        Stopped: asked to stop; the same command resumes.
    """
    study = with_fingerprints(planned(config), options.cache_dir, screen)
    folder = SweepFolder(options.workdir or default_folder(study.name, study.digest).path)
    screen.say(f"{len(study.runs)} folds, then a run on all images. Results: {folder.path}; runs: runs/.")
    with claimed_folder(folder.path, UserError(f"{folder.path}: is in use by another process; wait for it to end")):
        if options.rerun:
            forget(study, folder, finished=True)
        do_all(study, folder, options, read_launcher(launcher), config.slurm, screen)
        finished = all_finished(study, folder)
        warn_of_several_conditions(finished, screen)
        folds = read_folds(finished)
        screen.say()
        screen.say("All folds are done; the final run, on the images of all of them:", style="bold")
        shared = None if options.rerun else SHARED_STAGES
        own = replace(options, workdir=None, shared_stages=shared, out_of_fold=folds.predictions)
        final = launch(config, own, screen)
        write_results(folds, final, folder.path, screen)
    return final.path


def planned(config: Config) -> Study:
    """A run for each fold of a config; raises `UserError` if one is invalid."""
    runs = tuple(
        PlannedRun(f"fold {number}", run, {FOLD: number}) for number, run in enumerate(configs_of_folds(config))
    )
    study = Study(f"{config.name}_folds", runs)
    check_study(study)
    return study


def configs_of_folds(config: Config) -> list[Config]:
    """The config of the run of each fold."""
    return [
        # the pages of single folds cost more than they show; --mode=report writes them
        replace(config, dataset=replace(config.dataset, fold=number), log=replace(config.log, report=False))
        for number in range(config.dataset.folds)
    ]


def write_results(folds: Folds, final: RunFolder, folder: Path, screen: Screen) -> None:
    """Writes the metrics, the table of images and the figure; shows the metrics, and what to use."""
    found, result = folds.found, final.result()
    assert result is not None, "a run that returned is finished"
    own, metrics = None if "folds" in result["test"] else result["test"], split_metrics(found, folds.classes)
    by_fold = [
        {FOLD: number, "folder": _path(one.folder), **_accuracies(one.result, one.result["test"])}
        for number, one in enumerate(folds.runs)
    ]
    last = {"folder": _path(final.path), **_accuracies(result, own)}
    content = {
        "name": result["name"],
        "classes": folds.classes,
        "accuracy": found.accuracy,
        "accuracy_ci95": list(found.accuracy_ci95),
        "loss": found.loss,
        "examples": found.examples,
        "confusion": found.confusion,
        **metrics,
        "folds": by_fold,
        "final": last,
    }
    write_csv(image_rows(folds), folder / IMAGES)
    write_csv(metrics["per_class"], folder / CLASSES)
    figure = folder / CONFUSION
    figure.parent.mkdir(exist_ok=True)
    draw_or_say_why(figure, lambda: draw_confusion(found.confusion, folds.classes, figure), screen)
    write_json(folder / RESULT, content)
    whole = {"test": {"examples": found.examples, "accuracy": found.accuracy}, "validation_accuracy": None}
    named = {**{f"fold {one[FOLD]}": one for one in by_fold}, "all, out of fold": whole, "final run": last}
    screen.say()
    title = f"{result['name']} on {result['dataset']['name']}"
    rows = [[name, *_cells(one)] for name, one in named.items()]
    screen.say(screen_table(title, ("", "Validation", "Test", "Images"), rows, 1))
    screen.say(
        f"Accuracy out of fold {found.accuracy:.4f}, 95 % interval {interval_text(found.accuracy_ci95)}: each image "
        "predicted by a run that has not seen it."
    )
    screen.say(f"Results in {folder}: {RESULT}, {IMAGES} (doubtful images first), {CLASSES}, {CONFUSION}")
    screen.say(f"The network to use, trained on the images of all folds: {final.path}", style="bold")


def _accuracies(result: dict[str, Any], test: dict[str, Any] | None) -> dict[str, Any]:
    kept = None if test is None else {key: test[key] for key in ("examples", "accuracy", "accuracy_ci95", "loss")}
    return {"validation_accuracy": result["tested"]["validation"]["accuracy"], "test": kept}


def _cells(run: dict[str, Any]) -> list[str]:
    validation, test = run["validation_accuracy"], run["test"]
    tested = ("–", "–") if test is None else (f"{test['accuracy']:.4f}", f"{test['examples']:,}")
    return ["–" if validation is None else f"{validation:.4f}", *tested]


def _path(folder: Path) -> str:
    return absolute_path(str(folder))
