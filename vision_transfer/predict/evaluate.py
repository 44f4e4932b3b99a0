"""The mode `evaluate`: a finished run on its own test split again, or on other pictures of the same classes."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from vision_transfer.config import Config
from vision_transfer.metrics.classification import PerClass, TestResult, evaluate_test, per_class, wilson_interval
from vision_transfer.predict.labelled import Labelled, of_class_folders, of_test_split
from vision_transfer.predict.predictor import Predictor
from vision_transfer.predict.temperature import Fit, fit_of
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.files import write_json


def evaluate(
    workdir: Path, images: str | None, config: Config | None, out: str | None, cache_dir: Path, screen: Screen
) -> None:
    """Prints the figures of a finished run on pictures whose class is known, and writes them if `out` is given.

    Args:
        workdir: folder of the run.
        images: a folder with a folder of pictures for each class; empty: the test split of `config`'s data.
        config: names the data; empty: the run's own.
        out: a JSON file.
        cache_dir: root of all caches.
        screen: for the figures.

    Raises:
        UserError: no run, no data, or data of other classes.
    """
    predictor = Predictor.load(workdir, cache_dir, screen)
    if images is None:
        labelled = of_test_split(predictor, config, cache_dir, screen)
    else:
        labelled = of_class_folders(predictor, Path(images).expanduser(), screen)
    result = evaluate_test(labelled.logits, labelled.labels)
    fit = fit_of(labelled.logits, labelled.labels, predictor.temperature)
    _say(predictor, labelled, result, fit, screen)
    if out is not None:
        write_json(Path(out).expanduser(), _as_json(predictor, labelled, result, fit))


def _say(predictor: Predictor, labelled: Labelled, result: TestResult, fit: Fit, screen: Screen) -> None:
    table = Table(title=escape(labelled.name), title_justify="left")
    table.add_column("Class")
    for column in ("Pictures", "Recall", "95 % interval", "Precision", "F1"):
        table.add_column(column, justify="right", no_wrap=True)
    confusion = np.array(result.confusion)
    figures = per_class(confusion)
    for place, name in enumerate(predictor.classes):
        table.add_row(
            escape(name),
            f"{figures.support[place]:,}",
            _figure(figures.recall[place]),
            _interval(int(confusion[place, place]), int(figures.support[place])),
            _figure(figures.precision[place]),
            _figure(figures.f1[place]),
        )
    low, high = result.accuracy_ci95
    screen.say(table)
    screen.say(
        f"Accuracy {result.accuracy:.4f}, 95 % interval {low:.4f} to {high:.4f} (Wilson), "
        f"balanced {figures.balanced_accuracy:.4f}, loss {result.loss:.4f}, {result.examples:,} images."
    )
    for line in _calibration_lines(predictor, fit):
        screen.say(line)
    for skipped in labelled.skipped:
        screen.say(escape(f"left out: {skipped.file}: {skipped.reason}"), style="yellow")
    if labelled.is_the_runs:
        test = predictor.run.result["test"]
        screen.say(f"result.json says: accuracy {test['accuracy']:.4f}, loss {test['loss']:.4f}.")


def _calibration_lines(predictor: Predictor, fit: Fit) -> list[str]:
    (nll, new_nll), (ece, new_ece) = fit.nll, fit.ece
    if predictor.calibration is None:
        return [f"Calibration error {ece:.4f}; the probabilities are as the network gives them."]
    return [
        f"With the temperature {predictor.temperature:.3f}: loss {nll:.4f} → {new_nll:.4f}, "
        f"calibration error {ece:.4f} → {new_ece:.4f}."
    ]


def _as_json(predictor: Predictor, labelled: Labelled, result: TestResult, fit: Fit) -> dict[str, Any]:
    figures = per_class(np.array(result.confusion))
    return {
        "run": predictor.run.result["digest"],
        "data": labelled.name,
        "classes": list(predictor.classes),
        **asdict(result),
        "balanced_accuracy": figures.balanced_accuracy,
        "per_class": _per_class_json(predictor.classes, figures),
        "temperature": predictor.temperature,
        "calibrated": asdict(fit),
        "skipped": [asdict(skipped) for skipped in labelled.skipped],
    }


def _per_class_json(classes: tuple[str, ...], figures: PerClass) -> list[dict[str, Any]]:
    return [
        {
            "class": name,
            "examples": int(figures.support[place]),
            "recall": _number(figures.recall[place]),
            "precision": _number(figures.precision[place]),
            "f1": _number(figures.f1[place]),
        }
        for place, name in enumerate(classes)
    ]


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return None if np.isnan(value) else float(value)


def _figure(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.4f}"


def _interval(hits: int, examples: int) -> str:
    if not examples:
        return "–"
    low, high = wilson_interval(hits, examples)
    return f"{low:.3f} to {high:.3f}"
