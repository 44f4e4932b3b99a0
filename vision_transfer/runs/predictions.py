"""`predictions.npz` of a run: logits and labels of its test and validation splits, read by everything in one way."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from vision_transfer.data.formats.npz import read_member
from vision_transfer.errors import UserError
from vision_transfer.metrics.classification import class_log_probabilities
from vision_transfer.runtime.files import raise_if_of_the_system

# Arrays may inflate to this many bytes and, beyond that, to this multiple of the file: names of images compress well.
ALWAYS_ALLOWED, MOST_INFLATION = 64 << 20, 100
SPLITS = ("", "validation_")
NAMES = ("logits.npy", "labels.npy", "files.npy", "folds.npy")

# Logits and labels of a split.
LabelledLogits = tuple[Float[np.ndarray, "examples outputs"], Int[np.ndarray, "examples"]]


@dataclass(frozen=True)
class SavedPredictions:
    """Logits and labels of the test images, their files, and those of the validation images; the latter two if kept.

    With `is_out_of_fold` the test images are those of all folds, and networks of other runs, those of the folds, made
    their logits: they say how good such a network is, but nothing about this run's temperature or threshold.
    """

    test: LabelledLogits
    files: tuple[str, ...]
    validation: LabelledLogits | None
    is_out_of_fold: bool = False

    @property
    def own_test(self) -> LabelledLogits | None:
        """The test images where the run's own network predicted them."""
        return None if self.is_out_of_fold else self.test


@dataclass(frozen=True)
class OutOfFold:
    """Predictions of the images of all folds, each by the run that was tested on its fold, in one order of images."""

    logits: Float[np.ndarray, "examples outputs"]
    labels: Int[np.ndarray, "examples"]
    files: tuple[str, ...]
    folds: Int[np.ndarray, "examples"]


def read_predictions(file: Path) -> SavedPredictions | None:
    """The predictions in a file, or None where there is no file.

    Raises:
        UserError: it is damaged, or its arrays are not those of a run.
    """
    if not file.exists():
        return None
    try:
        with zipfile.ZipFile(file) as archive:
            members = [one for one in archive.infolist() if one.filename.endswith(NAMES)]
            if sum(one.file_size for one in members) > ALWAYS_ALLOWED + MOST_INFLATION * file.stat().st_size:
                raise ValueError(f"its arrays inflate to more than {MOST_INFLATION} times its size")
            found = {one.filename.removesuffix(".npy"): read_member(archive, one, file, "biufU") for one in members}
        test, validation = (_checked(found, split) for split in SPLITS)
        files = found.get("files")
        if test is None or (files is not None and files.shape != test[1].shape):
            raise ValueError("its arrays do not fit together")
    except Exception as error:  # a damaged zip raises almost anything
        raise_if_of_the_system(error)
        reason = " ".join(str(error).split())
        raise UserError(
            f"{file}: cannot be read ({reason}); bring it back from a copy, or remove result.json in the same folder, "
            "and the run's command writes both again"
        ) from error
    return SavedPredictions(test, () if files is None else tuple(map(str, files)), validation, "folds" in found)


def _checked(found: dict[str, np.ndarray], split: str) -> LabelledLogits | None:
    if f"{split}logits" not in found:
        return None
    logits, labels = found[f"{split}logits"], found[f"{split}labels"]
    kinds_fit = logits.dtype.kind == "f" and labels.dtype.kind in "iu"
    if not kinds_fit or logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(f"its {split}logits and {split}labels do not fit together")
    log_probabilities = class_log_probabilities(logits)
    if not np.isfinite(log_probabilities).all() or not np.isin(labels, range(log_probabilities.shape[1])).all():
        raise ValueError("it has values that are not logits or not labels")
    return logits, labels.astype(np.int64)
