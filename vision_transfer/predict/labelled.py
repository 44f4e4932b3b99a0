"""Pictures whose class is known: a split of a data set, or a folder of class folders."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from vision_transfer.config import Config
from vision_transfer.data.dataset import Skipped, Split
from vision_transfer.data.formats.image_files import display, is_folder
from vision_transfer.data.load import load_dataset
from vision_transfer.errors import UserError
from vision_transfer.models.inference import infer_stream
from vision_transfer.predict.image_files import pictures_below, shown
from vision_transfer.predict.predictor import Predictor
from vision_transfer.runs.build import data_request
from vision_transfer.runtime.console import Screen


@dataclass(frozen=True)
class Labelled:
    """What a network says of pictures whose class is known.

    Attributes:
        name: which pictures they are.
        logits: of each.
        labels: places in the run's classes.
        skipped: files that give no picture.
        is_the_runs: whether these are the very test pictures that the run reported.
    """

    name: str
    logits: Float[np.ndarray, "examples outputs"]
    labels: Int[np.ndarray, "examples"]
    skipped: tuple[Skipped, ...]
    is_the_runs: bool = False


def of_test_split(predictor: Predictor, config: Config | None, cache_dir: Path, screen: Screen) -> Labelled:
    """The test split of the run's own data, or of the data that another config names.

    Whatever that config says of size, channels and resampling, pictures are decoded as for the run.

    Raises:
        UserError: no such data, or of other classes.
    """
    form = predictor.form
    request = data_request(predictor.run.config if config is None else config)
    request = replace(request, image_size=form.size, channels=form.channels, resampling=form.resampling)
    dataset = load_dataset(replace(request, train_examples=None), cache_dir=cache_dir, screen=screen)
    if dataset.classes != predictor.classes:
        raise UserError(
            f"{dataset.name} has the classes {_listed(dataset.classes)}; the run knows {_listed(predictor.classes)}"
        )
    own = predictor.run.result["dataset"]["fingerprint"] == dataset.fingerprint
    if not own and config is None:
        screen.say("The data has changed since the run was made (its fingerprint is another).", style="yellow")
    logits = _logits_of_split(predictor, dataset.test, screen)
    return Labelled(f"test split of {dataset.name}", logits, dataset.test.labels, dataset.skipped, own)


def of_class_folders(predictor: Predictor, root: Path, screen: Screen) -> Labelled:
    """All pictures below `root/CLASS` for classes of the run; a class may be absent.

    Raises:
        UserError: no such folder, a folder in it that is no class of the run, or no pictures.
    """
    if not is_folder(root):
        raise UserError(f"--images={root}: there is no such folder; --mode=evaluate takes one with a folder per class")
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    strange = [entry.name for entry in folders if display(entry.name) not in predictor.classes]
    if strange or not folders:
        raise UserError(
            f"--images={root}: holds {'no folders' if not folders else f'the folder {display(strange[0])}'}; expected "
            f"a folder of pictures for each class, named as in the run: {_listed(predictor.classes)}"
        )
    files, labels = [], []
    for folder in folders:
        inside = pictures_below(folder)
        files += inside
        labels += [predictor.classes.index(display(folder.name))] * len(inside)
    logits, kept, skipped = [], [], []
    for chunk in predictor.stream(files, screen):
        for prediction in chunk:
            if prediction.logits is None:
                skipped.append(Skipped(shown(prediction.file), prediction.error or ""))
            else:
                logits.append(prediction.logits)
            kept.append(prediction.logits is not None)
    if not logits:
        raise UserError(f"--images={root}: holds no pictures in its class folders")
    return Labelled(f"pictures below {root}", np.stack(logits), np.array(labels)[kept], tuple(skipped))


def _logits_of_split(predictor: Predictor, split: Split, screen: Screen) -> Float[np.ndarray, "examples outputs"]:
    size, count = predictor.batch_size, len(split)
    starts = range(0, count, size)
    batches = (split.images[np.minimum(np.arange(start, start + size), count - 1)] for start in starts)
    parts = []
    with screen.bar("Evaluating", count) as advance:
        for outputs in infer_stream(predictor.network, predictor.variables, batches, predictor.mesh):
            parts.append(outputs)
            advance(len(outputs))
    return np.concatenate(parts)[:count]


def _listed(classes: Sequence[str], most: int = 10) -> str:
    named = ", ".join(classes[:most])
    return f"{named} and {len(classes) - most} more" if len(classes) > most else named
