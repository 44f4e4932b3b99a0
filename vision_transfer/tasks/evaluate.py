"""`--mode=evaluate`: metrics of a finished run on its own test split, on other data, or on class folders.

Several runs are evaluated as one, whose probabilities are the mean of theirs.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vision_transfer.config import Config
from vision_transfer.data.dataset import Skipped, Split, digest
from vision_transfer.data.formats.class_names import class_name
from vision_transfer.data.formats.image_files import display, is_folder, is_passed_over, refuse_pseudo_folder
from vision_transfer.data.load import load_dataset
from vision_transfer.errors import UserError
from vision_transfer.metrics.classification import evaluate_test, metrics
from vision_transfer.predict import Predictor
from vision_transfer.predict.decision import Decision, Outcome, meaning, outcome_of, reason, results_of
from vision_transfer.predict.image_files import sorted_files
from vision_transfer.predict.several import averaged_logits, load_several
from vision_transfer.predict.temperature import fit_of, probabilities
from vision_transfer.runs.result import split_metrics
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.files import user_path, write_json
from vision_transfer.tasks.tables import screen_table
from vision_transfer.training.validation import own_metrics

# Of a longer list of classes, those that a message names.
CLASSES_NAMED = 10


@dataclass(frozen=True)
class _Labelled:
    """Logits of images whose class is known.

    `images` identifies them: the data's fingerprint, where it has one, and the names of the images. `pixels` does, too,
    for networks that take the same: a digest of what they see, empty where there is none. `is_own_test` tells whether
    they are the test images of the run's `result.json`.
    """

    name: str
    images: tuple[str, ...]
    logits: Float[np.ndarray, "examples outputs"]
    labels: Int[np.ndarray, "examples"]
    skipped: tuple[Skipped, ...]
    is_own_test: bool = False
    pixels: str = ""


def evaluate(
    runs: Sequence[Path],
    images: str | None,
    config: Config | None,
    out: Path | None,
    cache_dir: Path,
    screen: Screen,
    views: str | None = None,
) -> None:
    """Prints the metrics of a finished run on images whose class is known, and writes them to the JSON file `out`.

    The images are in a folder `images` with a folder for each class, or the test split of the data that `config` names;
    default: the run's own. Of several runs the probabilities are averaged. `views` are those that `Predictor.load`
    takes.

    Raises:
        UserError: no run, no data or two of them, data with other classes, unknown views, or runs of other classes or
            test images.
    """
    if images is not None and config is not None:
        raise UserError("--mode=evaluate takes --images=FOLDER or --config=FILE; give one of them")
    members = load_several(runs, cache_dir, screen, views)

    def labelled_by(predictor: Predictor) -> _Labelled:
        if images is None:
            return _on_test_split(predictor, config, cache_dir, screen)
        return _on_class_folders(predictor, user_path(images), screen)

    by_run = [labelled_by(member) for member in members]
    if len(members) == 1:
        predictor, labelled = members[0], by_run[0]
        alone = {"run": predictor.run.result["digest"]}
    else:
        # the mean is calibrated as its parts are, and no run's threshold was chosen for it
        predictor = replace(members[0], calibration=None, decision=None)
        labelled, alone = _averaged(runs, members, by_run), _alone(runs, members, by_run)
    found = alone | _metrics(predictor, labelled)
    _say(predictor, labelled, found, screen)
    if out is not None:
        write_json(out, found)


def _averaged(runs: Sequence[Path], members: Sequence[Predictor], by_run: Sequence[_Labelled]) -> _Labelled:
    """The images of all runs, with logits of the mean of their probabilities."""
    first = by_run[0]
    for folder, one in zip(runs, by_run, strict=True):
        # two splits of the same classes have equal labels
        # data that is divided otherwise into training and validation may have the same test images
        equal = one.images == first.images or (one.pixels and one.pixels == first.pixels)
        if not equal or not np.array_equal(one.labels, first.labels):
            raise UserError(
                f"--workdir: the test images of {folder} are not those of {runs[0]}; add --images=FOLDER, with a "
                "folder for each class, or --config=FILE"
            )
    logits = averaged_logits(members, [one.logits for one in by_run])
    return replace(first, name=f"{first.name}, mean of {len(members)} runs", logits=logits, is_own_test=False)


def _alone(runs: Sequence[Path], members: Sequence[Predictor], by_run: Sequence[_Labelled]) -> dict[str, Any]:
    """Each run's own accuracy and loss, calibrated, as JSON values."""
    rows = []
    for folder, member, one in zip(runs, members, by_run, strict=True):
        found = asdict(metrics(one.logits / member.temperature, one.labels))
        rows.append({"workdir": str(folder), "run": member.run.result["digest"]} | found)
    return {"runs": rows}


def _on_test_split(predictor: Predictor, config: Config | None, cache_dir: Path, screen: Screen) -> _Labelled:
    """The test split of the run's own data or of another config's, with images decoded as for the run."""
    form = predictor.form
    data = (predictor.run.config if config is None else config).dataset
    data = replace(data, train_examples=None, image_size=form.size, channels=form.channels, resampling=form.resampling)
    try:
        dataset = load_dataset(data, cache_dir=cache_dir, screen=screen)
    except UserError as error:
        if config is not None:
            raise
        raise UserError(
            f"the data of the run {predictor.run.folder.path} cannot be read: {error} To evaluate it on other data, "
            "add --images=FOLDER, with a folder for each class, or --config=FILE"
        ) from error
    if not len(dataset.test):
        if config is not None:
            raise UserError(f"--config: its data, {dataset.name}, has no test split; add --images=FOLDER instead")
        raise UserError(
            f"the run {predictor.run.folder.path} was trained on the images of all folds, and its data has no test "
            "split; add --images=FOLDER, with a folder for each class, or --config=FILE"
        )
    if dataset.classes != predictor.classes:
        raise UserError(
            f"{dataset.name} has the classes {_listed(dataset.classes)}; the run has {_listed(predictor.classes)}"
        )
    own = predictor.run.result["dataset"]["fingerprint"] == dataset.fingerprint
    if not own and config is None:
        screen.say("The data has changed since the run (its fingerprint differs).", style="yellow")
    logits = _logits_of_split(predictor, dataset.test, screen)
    images = (dataset.fingerprint, *dataset.test.files)
    pixels = digest(dataset.test.digests.tobytes()).hex()
    return _Labelled(f"test split of {dataset.name}", images, logits, dataset.test.labels, dataset.skipped, own, pixels)


def _on_class_folders(predictor: Predictor, root: Path, screen: Screen) -> _Labelled:
    """All images below `root/CLASS` for classes of the run; classes may be missing."""
    if not is_folder(root):
        raise UserError(f"--images={root}: no such folder; --mode=evaluate needs one with a folder per class")
    refuse_pseudo_folder(root, "--images")
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir() and not is_passed_over(entry.name))
    unknown = [entry.name for entry in folders if class_name(entry.name) not in predictor.classes]
    if unknown or not folders:
        raise UserError(
            f"--images={root}: has {f'the folder {display(unknown[0])}' if unknown else 'no folders'}; expected "
            f"a folder of images for each class, named as in the run: {_listed(predictor.classes)}"
        )
    labelled: list[tuple[str, int]] = []
    logits, labels, named, skipped = [], [], [], []
    for folder in folders:
        images, others = sorted_files(folder)
        labelled += [(file, predictor.classes.index(class_name(folder.name))) for file in images]
        skipped += [Skipped(display(file), "not an image") for file in others]
    predictions = (one for chunk in predictor.stream([file for file, _ in labelled], screen) for one in chunk)
    for prediction, (_, label) in zip(predictions, labelled, strict=True):
        if prediction.logits is None:
            skipped.append(Skipped(display(prediction.file), prediction.error or ""))
        else:
            logits.append(prediction.logits)
            labels.append(label)
            named.append(prediction.file)
    if not logits:
        first = next((f"; {one.file}: {one.reason}" for one in skipped), "")
        raise UserError(f"--images={root}: has no images in its class folders that can be read{first}")
    return _Labelled(f"images below {root}", tuple(named), np.stack(logits), np.array(labels), tuple(skipped))


def _logits_of_split(predictor: Predictor, split: Split, screen: Screen) -> Float[np.ndarray, "examples outputs"]:
    size, count = predictor.batch_size, len(split)
    starts = range(0, count, size)
    batches = (split.images[np.minimum(np.arange(start, start + size), count - 1)] for start in starts)
    parts = []
    with screen.bar("Evaluating", count) as advance:
        for outputs in predictor.logits(batches):
            parts.append(outputs)
            advance(len(outputs))
    return np.concatenate(parts)[:count]


def _metrics(predictor: Predictor, labelled: _Labelled) -> dict[str, Any]:
    """All metrics as JSON values."""
    measured = split_metrics(evaluate_test(labelled.logits, labelled.labels), predictor.classes)
    for row in measured["per_class"]:
        row["examples"] = row.pop("support")
    own = own_metrics(predictor.run.config.metrics, labelled.logits, labelled.labels)
    decision, outcome = predictor.decision, None
    if decision is not None:
        shares = probabilities(labelled.logits, decision.temperature)
        outcome = outcome_of(decision, predictor.classes, shares, labelled.labels)
    return {
        "data": labelled.name,
        "classes": list(predictor.classes),
        **({"views": [view.__name__ for view in predictor.views]} if len(predictor.views) > 1 else {}),
        **measured,
        **({"own": own} if own else {}),
        **({} if decision is None or outcome is None else {"decision": _decided(decision, outcome)}),
        "temperature": predictor.temperature,
        "calibrated": asdict(fit_of(labelled.logits, labelled.labels, predictor.temperature)),
        "skipped": [asdict(skipped) for skipped in labelled.skipped],
    }


def _say(predictor: Predictor, labelled: _Labelled, found: dict[str, Any], screen: Screen) -> None:
    # two tables, since one would not fit into 80 columns
    shown = {
        labelled.name: {"Images": "examples", "Recall": "recall", "95 % interval": "recall_ci95", "F1": "f1"},
        "": {
            "Precision": "precision",
            "95 % interval": "precision_ci95",
            "ROC-AUC": "roc_auc",
            "Average precision": "average_precision",
        },
    }
    for title, columns in shown.items():
        rows = [[row["class"], *(_shown(row[key]) for key in columns.values())] for row in found["per_class"]]
        screen.say(screen_table(title, ("Class", *columns), rows, 1))
    low, high = found["accuracy_ci95"]
    screen.say(
        f"Accuracy {found['accuracy']:.4f}, 95 % interval {low:.4f} to {high:.4f} (Wilson), balanced "
        f"{found['balanced_accuracy']:.4f}, loss {found['loss']:.4f}, {found['examples']:,} images."
    )
    top = found["top_k"]
    screen.say(
        f"One class against the rest, mean: ROC-AUC {_shown(found['roc_auc'])}, average precision "
        f"{_shown(found['average_precision'])}. Cohen's kappa {_shown(found['kappa'])}, Matthews "
        f"{_shown(found['matthews'])}{'' if top is None else ', top-{k} accuracy {accuracy:.4f}'.format(**top)}."
    )
    for name, value in found.get("own", {}).items():
        screen.say(f"{name}: {_shown(value)} (a metric of your own)")
    if predictor.decision is not None:
        decided = found["decision"]
        screen.say(f"Decision: {decided['meaning']} (chosen on validation: {decided['reason']}).")
        screen.say(f"  here: {decided['result']}")
    (nll, new_nll), (ece, new_ece) = found["calibrated"]["nll"], found["calibrated"]["ece"]
    if "runs" in found:
        screen.say(f"Calibration error {ece:.4f}. Accuracy and loss of each run alone, calibrated:")
        for row in found["runs"]:
            screen.say(f"  {row['accuracy']:.4f}, {row['loss']:.4f}: {row['workdir']}")
    elif predictor.calibration is None:
        screen.say(f"Calibration error {ece:.4f}; the probabilities are not calibrated.")
    elif predictor.temperature == 1:
        screen.say(f"Calibration error {ece:.4f}; the temperature is 1, since no other helped in cross-validation.")
    else:
        screen.say(
            f"With the temperature {predictor.temperature:.3f}: loss {nll:.4f} → {new_nll:.4f}, "
            f"calibration error {ece:.4f} → {new_ece:.4f}."
        )
    for skipped in labelled.skipped:
        screen.say(f"left out: {skipped.file}: {skipped.reason}", style="yellow")
    if labelled.is_own_test:
        test = predictor.run.result["test"]
        screen.say(f"In result.json: accuracy {test['accuracy']:.4f}, loss {test['loss']:.4f}.")


def _decided(decision: Decision, outcome: Outcome) -> dict[str, Any]:
    """The decision and its outcome as JSON values, and in words."""
    words = {"meaning": meaning(decision), "reason": reason(decision), "result": results_of(decision, outcome)}
    return {"threshold": decision.threshold, "positive": decision.positive} | asdict(outcome) | words


def _shown(value: float | tuple[float, float] | None) -> str:
    """A count, a metric or an interval; a dash where it is not defined."""
    if isinstance(value, tuple):
        return "{:.3f} to {:.3f}".format(*value)
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def _listed(classes: Sequence[str]) -> str:
    named = ", ".join(classes[:CLASSES_NAMED])
    return f"{named} and {len(classes) - CLASSES_NAMED} more" if len(classes) > CLASSES_NAMED else named
