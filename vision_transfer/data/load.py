"""The front door: from a request to a data set that is ready for training."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from vision_transfer.data.dataset import SPLITS, DataRequest, Dataset, Skipped, Split
from vision_transfer.data.decoded_cache import load_cached
from vision_transfer.data.decoding import Form, decode_in_memory
from vision_transfer.data.find import find_source
from vision_transfer.data.resize import RESAMPLINGS
from vision_transfer.data.source import Source, fingerprint
from vision_transfer.data.subset import balanced_subset, hold_out
from vision_transfer.errors import UserError
from vision_transfer.screen import Screen

# How many left-out files an error message names; all are in `Dataset.skipped`.
_NAMED_IN_ERRORS = 3


def load_dataset(request: DataRequest, *, cache_dir: Path, screen: Screen) -> Dataset:
    """Finds, decodes (or opens the cache of) and splits the data that a request asks for.

    Args:
        request: which data, in what form.
        cache_dir: root of all caches; decoded images go to its folder `decoded`.
        screen: for progress bars and what the user should know.

    Raises:
        UserError: the data is not there, or not usable; the message says what to do.
    """
    _check_request(request)
    source = with_held_out_splits(find_source(request, cache_dir, screen), request)
    form = Form(request.image_size or source.default_size, request.channels, request.resampling)
    if source.in_memory:
        splits, skipped = _decode_all(source, form, screen)
    else:
        splits, skipped = load_cached(source, form, cache_dir, screen)
    skipped = source.skipped + skipped
    _check_no_empty_class(source, splits, skipped)
    train = splits["train"]
    if request.train_examples is not None:
        train = _subset(train, request)
    return Dataset(
        name=source.name,
        classes=source.classes,
        train=train,
        validation=splits["validation"],
        test=splits["test"],
        fingerprint=fingerprint(source),
        skipped=skipped,
        note=source.note,
    )


def with_held_out_splits(source: Source, request: DataRequest) -> Source:
    """Adds the splits that a source does not have, held out of its training examples class by class."""
    splits, notes = dict(source.splits), []
    for split, fraction in (("test", request.test_fraction), ("validation", request.validation_fraction)):
        if split in splits:
            continue
        train = splits["train"]
        kept, held = hold_out(train.labels, train.files, fraction, purpose=split)
        splits["train"], splits[split] = train.take(kept), train.take(held)
        held_out = (
            f"{len(held):,} of the {len(train.files):,} training images ({fraction:.3g} of each class, chosen by a "
        )
        held_out += "hash of their names) are held out for it."
        left_empty = f"it is left empty, as dataset.{split}_fraction=0 asks."
        notes.append(f"There is no {split} split: {held_out if fraction else left_empty}")
    ordered = {split: splits[split] for split in SPLITS}
    return replace(source, splits=ordered, note=" ".join([source.note, *notes]))


def _check_request(request: DataRequest) -> None:
    if request.channels not in (1, 3):
        raise UserError(f"dataset.channels is {request.channels}; allowed are 1 (grey) and 3 (RGB).")
    if request.resampling not in RESAMPLINGS:
        raise UserError(f"dataset.resampling is {request.resampling!r}; allowed are {', '.join(RESAMPLINGS)}.")
    if request.image_size is not None and request.image_size < 1:
        raise UserError(f"dataset.image_size is {request.image_size}; it must be at least 1.")
    if not 0 <= request.validation_fraction < 1:
        raise UserError(
            f"dataset.validation_fraction is {request.validation_fraction}; it must be at least 0 and less than 1."
        )
    if not 0 < request.test_fraction < 1:
        raise UserError(f"dataset.test_fraction is {request.test_fraction}; it must be more than 0 and less than 1.")


def _decode_all(source: Source, form: Form, screen: Screen) -> tuple[dict[str, Split], tuple[Skipped, ...]]:
    decoded = {
        split: decode_in_memory(examples, form, screen=screen, title=f"Preparing {split}")
        for split, examples in source.splits.items()
    }
    splits = {split: result[0] for split, result in decoded.items()}
    return splits, sum((result[1] for result in decoded.values()), ())


def _check_no_empty_class(source: Source, splits: Mapping[str, Split], skipped: tuple[Skipped, ...]) -> None:
    """Every class must have an image in every split (but a split asked to be empty may be)."""
    left_out = "; ".join(f"{item.file}: {item.reason}" for item in skipped[:_NAMED_IN_ERRORS])
    because = f" {len(skipped)} file(s) were left out, such as {left_out}." if skipped else ""
    if not any(len(split) for split in splits.values()):
        raise UserError(f"{source.name}: no images at all.{because} Expected {source.expected}.")
    for name, split in splits.items():
        if not len(source.splits[name].files) and name == "validation":
            continue
        counts = np.bincount(split.labels, minlength=len(source.classes))
        if not counts.all():
            empty = source.classes[int(np.argmin(counts))]
            raise UserError(
                f"{source.name}: no image of the class {empty} in {name}.{because} Every class needs an image in every "
                "split: add some, or remove the class from all splits."
            )


def _subset(train: Split, request: DataRequest) -> Split:
    count = request.train_examples
    if count is None or not 1 <= count <= len(train):
        raise UserError(f"dataset.train_examples is {count}; there are {len(train):,} training images.")
    return train.take(balanced_subset(train.labels, train.files, count, request.subset_seed))
