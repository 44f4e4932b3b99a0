"""The front door: from a request to a data set that is ready for training."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from vision_transfer.data.dataset import SPLITS, DataRequest, Dataset, Skipped, Split
from vision_transfer.data.find import find_source
from vision_transfer.data.formats.arrays import MAX_CLASSES
from vision_transfer.data.images.cache import load_cached
from vision_transfer.data.images.decode_all import Form, decode_in_memory
from vision_transfer.data.images.near_duplicates import connected, equal_contents, near_duplicates
from vision_transfer.data.images.resize import RESAMPLINGS
from vision_transfer.data.images.thumbnails import load_thumbnails
from vision_transfer.data.source import Source, fingerprint
from vision_transfer.data.subset import balanced_subset, hold_out
from vision_transfer.errors import UserError
from vision_transfer.runtime.console import Screen

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
    source = _source(request, cache_dir, screen)
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


def data_fingerprint(request: DataRequest, *, cache_dir: Path, screen: Screen) -> str:
    """The `fingerprint` that the data set would have; decodes no more than splits need that are made here.

    Raises:
        UserError: the data is not there, or not usable.
    """
    return fingerprint(_source(request, cache_dir, screen))


def _source(request: DataRequest, cache_dir: Path, screen: Screen) -> Source:
    """The source with all three splits."""
    _check_request(request)
    found = find_source(request, cache_dir, screen)
    if len(found.classes) > MAX_CLASSES:
        raise UserError(
            f"{found.name}: has {len(found.classes):,} classes; there may be at most {MAX_CLASSES:,}. Expected "
            f"{found.expected}."
        )
    source = with_held_out_splits(found, request, cache_dir, screen)
    check_no_shared_file(source)
    return source


def with_held_out_splits(source: Source, request: DataRequest, cache_dir: Path, screen: Screen) -> Source:
    """Adds the splits that a source does not have, held out of its training examples class by class.

    Where the pictures may have near-duplicates, those stay on one side.
    """
    splits, notes = dict(source.splits), []
    if all(split in splits for split in SPLITS):
        return source
    grouped = source.has_near_duplicates and request.group_near_duplicates
    groups = _groups(source, grouped, cache_dir, screen)
    together = _together(groups) if grouped else ""
    for split, fraction in (("test", request.test_fraction), ("validation", request.validation_fraction)):
        if split in splits:
            continue
        train = splits["train"]
        kept, held = hold_out(train.labels, train.files, fraction, split, request.split_seed, groups)
        splits["train"], splits[split], groups = train.take(kept), train.take(held), groups[kept]
        held_out = (
            f"{len(held):,} of the {len(train.files):,} training images ({fraction:.3g} of each class, chosen by a "
            f"hash of their names{together}) are held out for it."
        )
        left_empty = f"it is left empty, as --config.dataset.{split}_fraction=0 asks."
        notes.append(f"There is no {split} split: {held_out if fraction else left_empty}")
    ordered = {split: splits[split] for split in SPLITS}
    return replace(source, splits=ordered, note=" ".join([source.note, *notes]))


def _groups(source: Source, grouped: bool, cache_dir: Path, screen: Screen) -> Int32[np.ndarray, "examples"]:
    """Groups of training examples that no split may divide: equal files and, where it is asked, near-duplicates."""
    train = source.splits["train"]
    pairs = equal_contents(train.contents)
    if grouped:
        thumbnails = load_thumbnails(train, fingerprint(source), cache_dir, screen)
        pairs = np.concatenate([pairs, near_duplicates(thumbnails.pixels, thumbnails.decoded).pairs])
    return connected(len(train.files), pairs)


def _together(groups: Int32[np.ndarray, "examples"]) -> str:
    sizes = np.bincount(groups)
    count, images = int((sizes > 1).sum()), int(sizes[sizes > 1].sum())
    if not count:
        return "; no near-duplicates among them"
    return f"; {images:,} near-duplicates in {count:,} {'group' if count == 1 else 'groups'} stay together"


def check_no_shared_file(source: Source) -> None:
    """Two splits must not share a file, by content: the score would be a memory test.

    (The classic `cats_vs_dogs_small` has no such pair.)

    Raises:
        UserError: they do.
    """
    files = {
        split: dict(zip(reversed(examples.contents), reversed(examples.files), strict=True))
        for split, examples in source.splits.items()
        if examples.contents
    }
    for first, second in combinations(files, 2):
        shared = [content for content in files[first] if content in files[second]]
        if shared:
            raise UserError(
                f"--config.dataset.root: {first} and {second} share {len(shared)} file(s) of equal content, such as "
                f"{files[first][shared[-1]]} and {files[second][shared[-1]]}. Remove them from one of the two "
                "(--mode=check lists all)."
            )


def _check_request(request: DataRequest) -> None:
    if request.channels not in (1, 3):
        raise UserError(f"--config.dataset.channels is {request.channels}; allowed are 1 (grey) and 3 (RGB).")
    if request.resampling not in RESAMPLINGS:
        raise UserError(f"--config.dataset.resampling is {request.resampling!r}; allowed are {', '.join(RESAMPLINGS)}.")
    if request.image_size is not None and request.image_size < 1:
        raise UserError(f"--config.dataset.image_size is {request.image_size}; it must be at least 1.")
    if not 0 <= request.validation_fraction < 1:
        raise UserError(
            f"--config.dataset.validation_fraction is {request.validation_fraction}; it must be at least 0 and less "
            "than 1."
        )
    if not 0 < request.test_fraction < 1:
        raise UserError(
            f"--config.dataset.test_fraction is {request.test_fraction}; it must be more than 0 and less than 1."
        )


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
        raise UserError(f"--config.dataset.train_examples is {count}; there are {len(train):,} training images.")
    return train.take(balanced_subset(train.labels, train.files, count, request.subset_seed))
