"""Loads the data set that a config asks for, ready for training."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int32, UInt8

from vision_transfer.config.schema import DatasetConfig
from vision_transfer.data.dataset import (
    DIGEST_BYTES,
    SPLITS,
    Dataset,
    Skipped,
    Split,
    digest,
    digest_image,
    stack_digests,
)
from vision_transfer.data.doubts import LEAST_CONTRAST, say_too_small, say_without_contrast, without_contrast
from vision_transfer.data.find import find_source
from vision_transfer.data.folds import named_groups, pairs_of_groups, pooled, taken, together, with_fold_as_test
from vision_transfer.data.formats.arrays import MAX_CLASSES
from vision_transfer.data.formats.image_files import display
from vision_transfer.data.images.cache import Decoded, kept_mask, load_images
from vision_transfer.data.images.decode import UndecodableError
from vision_transfer.data.images.near_duplicates import connected, equal_contents, load_near_pairs
from vision_transfer.data.images.resize import Form
from vision_transfer.data.source import Examples, Source, fingerprint, joined
from vision_transfer.data.subset import balanced_subset, hold_out
from vision_transfer.errors import UserError
from vision_transfer.runtime.console import Screen

# The cache has a bit for each image of a split: whether it has no contrast.
CONTRAST_FOLDER = "contrast"
# And a bit for each of many examples: whether it is held out. The version is to be raised when `hold_out` changes.
HELD_OUT_FOLDER, HOLD_OUT_VERSION = "held_out", 1
_MANY = 100_000
_RGB = 3
# Number of left-out files that an error message names; all are in `Dataset.skipped`.
_NAMED_IN_ERRORS = 3


def load_dataset(config: DatasetConfig, *, cache_dir: Path, screen: Screen) -> Dataset:
    """Finds, splits and decodes the data that a config asks for, or opens its decoded images in the cache.

    Raises:
        UserError: the data is not there, or not usable; the message tells what to do.
    """
    source = source_with_splits(config, cache_dir, screen)
    form = Form(config.image_size or source.default_size, config.channels, config.resampling)
    splits, undecodable = _decoded(source, config, form, cache_dir, screen)
    skipped = source.skipped + undecodable
    # the model of all folds may have no test
    may_be_empty = ("validation", "test") if config.folds else ("validation",)
    _check_no_empty_class(source, splits, skipped, may_be_empty)
    train, count = splits["train"], config.train_examples
    if count is not None:
        if not 1 <= count <= len(train):
            raise UserError(f"--config.dataset.train_examples is {count}; there are {len(train):,} training images.")
        train = train.take(balanced_subset(train.labels, train.files, count, config.subset_seed))
    flat = [
        split.files[row] for split in splits.values() for row in np.flatnonzero(_without_contrast(split, cache_dir))
    ]
    warnings = [
        *source.warnings,
        *say_without_contrast(flat, source.splits, sum(map(len, splits.values())), config.value_range),
        *say_too_small("validation", source.classes, splits["validation"].labels),
        *say_too_small("test", source.classes, splits["test"].labels),
    ]
    return Dataset(
        name=source.name,
        classes=source.classes,
        train=train,
        validation=splits["validation"],
        test=splits["test"],
        fingerprint=fingerprint(source),
        skipped=skipped,
        note=source.note,
        warnings=tuple(warnings),
    )


def _decoded(source: Source, config: DatasetConfig, form: Form, cache_dir: Path, screen: Screen) -> Decoded:
    """The decoded splits of a source. The images of all folds are decoded together, and so only once."""
    load = partial(load_images, form=form, cache_dir=cache_dir, screen=screen, decode=config.decode)
    if not config.folds:
        return load(source)
    apart = {"test": source.splits["test"]} if config.fold is None else {}
    dealt = {name: examples for name, examples in source.splits.items() if name not in apart}
    whole, undecodable = load(replace(source, splits={"train": together(dealt)}))
    tested, more = load(replace(source, splits=apart)) if apart else ({}, ())
    return taken(whole["train"], dealt) | tested, undecodable + more


def _without_contrast(split: Split, cache_dir: Path) -> Bool[np.ndarray, "examples"]:
    """Whether each image has no contrast; kept for images that are on disk, since it takes a look at each."""
    if split.without_contrast is not None:
        return split.without_contrast
    if isinstance(split.images, np.ndarray):
        return without_contrast(split.images)
    key = digest(f"{LEAST_CONTRAST} ".encode() + split.digests.tobytes()).hex()
    return kept_mask(cache_dir / CONTRAST_FOLDER / key, len(split), lambda: without_contrast(split.images))


def data_fingerprint(config: DatasetConfig, *, cache_dir: Path, screen: Screen) -> str:
    """The fingerprint of a config's data set; see `source_with_splits`."""
    return fingerprint(source_with_splits(config, cache_dir, screen))


def source_with_splits(config: DatasetConfig, cache_dir: Path, screen: Screen) -> Source:
    """The source of a config's data with all three splits; decodes no more than is needed to hold out missing ones.

    Raises:
        UserError: the data is not there, or not usable.
    """
    if not 0 < config.test_fraction < 1:
        raise UserError(
            f"--config.dataset.test_fraction is {config.test_fraction}; it must be more than 0 and less than 1."
        )
    found = find_source(config, cache_dir, screen)
    if config.folds:
        found = pooled(found, own_test=config.fold is None)
    if len(found.classes) > MAX_CLASSES:
        raise UserError(
            f"{found.name} has {len(found.classes):,} classes; at most {MAX_CLASSES:,} are allowed. Expected "
            f"{found.expected}."
        )
    source = _with_held_out_splits(found, config, cache_dir, screen)
    check_no_shared_file(source)
    return source


def _with_held_out_splits(source: Source, config: DatasetConfig, cache_dir: Path, screen: Screen) -> Source:
    """Adds the missing splits of a source, held out of its training examples class by class.

    Near-duplicates, equal files and what the user names together stay together.
    """
    if len(source.splits) > 1:
        source = replace(source, warnings=(*source.warnings, *_divided_groups(source, config.grouped_by)))
    if all(split in source.splits for split in SPLITS):
        return source
    grouped = source.has_near_duplicates and config.group_near_duplicates
    source, groups = _groups(source, grouped, config.grouped_by, cache_dir, screen)
    kept_together = _groups_phrase(groups) if grouped or config.grouped_by else ""
    if config.fold is not None:
        source, kept = with_fold_as_test(source, config.fold, config.folds, config.split_seed, groups)
        groups = groups[kept]
    splits, notes = dict(source.splits), []
    for split, fraction in (("test", config.test_fraction), ("validation", config.validation_fraction)):
        if split in splits:
            continue
        train = splits["train"]
        kept, held = _held_out(train, fraction, split, config.split_seed, groups, cache_dir)
        if fraction and (len(held) or split == "test"):  # no validation at all is a warning
            _check_held_out(source, train, held, split, groups)
        splits["train"], splits[split], groups = train.take(kept), train.take(held), groups[kept]
        held_out = (
            f"{len(held):,} of the {len(train.files):,} training images ({fraction:.3g} of each class, chosen by a "
            f"hash of their names{kept_together}) are held out for it."
        )
        left_empty = f"it is left empty (--config.dataset.{split}_fraction=0)."
        notes.append(f"There is no {split} split: {held_out if fraction else left_empty}")
    ordered = {split: splits[split] for split in SPLITS}
    return replace(source, splits=ordered, note=" ".join([source.note, *notes]))


def _check_held_out(
    source: Source, train: Examples, held: Int32[np.ndarray, "held"], split: str, groups: Int32[np.ndarray, "examples"]
) -> None:
    """Raises UserError if none of a class's several images is held out, because of what stays together."""
    counts = np.bincount(train.labels, minlength=len(source.classes))
    chosen = np.bincount(train.labels[held], minlength=len(source.classes))
    for label in np.flatnonzero((counts > 1) & (chosen == 0))[:1]:
        number = len(np.unique(groups[train.labels == label]))
        advice = ["add images of other groups", "remove the class"]
        if split == "validation":
            advice.append("do without validation (--config.dataset.validation_fraction=0)")
        if not train.in_memory:
            advice.append(
                "divide groups after all (omit config.dataset.grouped_by, or "
                "--config.dataset.group_near_duplicates=False)"
            )
        raise UserError(
            f"{source.name}: no image of the class {source.classes[label]} can be held out for {split}: its "
            f"{counts[label]:,} images are in {number} group{'' if number == 1 else 's'} of images that stay together "
            f"(equal or nearly equal ones, and groups that you name). Possible: {'; '.join(advice)}"
        )


def _held_out(
    train: Examples, fraction: float, split: str, seed: int, groups: Int32[np.ndarray, "examples"], cache_dir: Path
) -> tuple[Int32[np.ndarray, "kept"], Int32[np.ndarray, "held"]]:
    """`hold_out`; of many examples the answer is kept, since it hashes each name."""
    count = len(train.files)
    if count < _MANY:
        return hold_out(train.labels, train.files, fraction, split, seed, groups)

    def find() -> Bool[np.ndarray, "examples"]:
        held = np.zeros(count, bool)
        held[hold_out(train.labels, train.files, fraction, split, seed, groups)[1]] = True
        return held

    question = f"{HOLD_OUT_VERSION} {fraction} {split} {seed}".encode(), "\0".join(train.files).encode()
    parts = (*question, train.labels.tobytes(), groups.tobytes())
    key = digest(b"".join(map(digest, parts))).hex()
    held = kept_mask(cache_dir / HELD_OUT_FOLDER / key, count, find)
    return np.flatnonzero(~held).astype(np.int32), np.flatnonzero(held).astype(np.int32)


def _groups(
    source: Source, grouped: bool, pattern: str | None, cache_dir: Path, screen: Screen
) -> tuple[Source, Int32[np.ndarray, "examples"]]:
    """The source without training files that do not decode, and groups of training examples that no split may divide.

    A group has equal files, or equal images of arrays, what the user names together and, if requested, near-duplicates.
    """
    train = source.splits["train"]
    if not grouped or train.read is None:
        contents = _digests_of_arrays(train) if train.in_memory else train.contents
        pairs = np.concatenate([equal_contents(contents), pairs_of_groups(named_groups(train, pattern))])
        return source, connected(len(train.files), pairs)
    near, decoded = load_near_pairs(train, fingerprint(source), cache_dir, screen)
    problems = [(train.files[place], _problem(train, int(place))) for place in np.flatnonzero(~decoded)]
    source = source.without("train", [Skipped(file, problem or "does not decode") for file, problem in problems])
    train = source.splits["train"]
    pairs = np.concatenate([equal_contents(train.contents), pairs_of_groups(named_groups(train, pattern)), near])
    return source, connected(len(train.files), pairs)


def _divided_groups(source: Source, pattern: str | None) -> list[str]:
    """A sentence if splits that the data has divide what the user names together."""
    if pattern is None and not any(examples.groups for examples in source.splits.values()):
        return []
    splits = [split for split, examples in source.splits.items() for _ in examples.files]
    where: dict[str, set[str]] = {}
    for name, split in zip(named_groups(joined(list(source.splits.values())), pattern), splits, strict=True):
        if name is not None:
            where.setdefault(name, set()).add(split)
    divided = sorted(name for name, splits in where.items() if len(splits) > 1)
    if not divided:
        return []
    first, several = divided[0], " and ".join(split for split in SPLITS if split in where[divided[0]])
    return [
        f"{len(divided):,} of {len(where):,} groups are in several splits, such as {display(first)} in {several}: "
        "metrics on images of a group that training has seen are too good."
    ]


def _digests_of_arrays(examples: Examples) -> UInt8[np.ndarray, "examples 16"]:
    return stack_digests([digest_image(examples.pixels(place, _RGB)) for place in range(len(examples.files))])


def _problem(examples: Examples, place: int) -> str | None:
    """Why an example does not decode, or None."""
    try:
        examples.pixels(place, 1)
    except UndecodableError as reason:
        return str(reason)
    return None


def _groups_phrase(groups: Int32[np.ndarray, "examples"]) -> str:
    """A phrase for the note on near-duplicates, equal files and what the user names together."""
    sizes = np.bincount(groups)
    count, images = int((sizes > 1).sum()), int(sizes[sizes > 1].sum())
    if not count:
        return "; no two of them belong together"
    return f"; {images:,} that belong together, in {count:,} {'group' if count == 1 else 'groups'}, are not divided"


def check_no_shared_file(source: Source) -> None:
    """Raises UserError if two splits share an image, by content: their metrics would reward memorisation."""
    names = [split for split, examples in source.splits.items() if len(examples.contents)]
    splits = [source.splits[name] for name in names]
    pairs = equal_contents(np.concatenate([np.zeros((0, DIGEST_BYTES), np.uint8), *(one.contents for one in splits)]))
    starts = np.cumsum([0, *(len(one.files) for one in splits)])
    numbers = np.searchsorted(starts, pairs, side="right") - 1
    for first, second in combinations(range(len(splits)), 2):
        one, other = splits[first], splits[second]
        places = pairs[(numbers == (first, second)).all(axis=1)] - starts[[first, second]]
        # What does not decode is no example.
        shared = {place: same for place, same in reversed(places.tolist()) if _problem(one, place) is None}
        if shared:
            place = min(shared)
            raise UserError(
                f"--config.dataset.root: {names[first]} and {names[second]} share {len(shared)} file(s) of equal "
                f"content, such as {one.files[place]} and {other.files[shared[place]]}. Remove them from one of the "
                "two (--mode=check lists all)."
            )


def _check_no_empty_class(
    source: Source, splits: Mapping[str, Split], skipped: tuple[Skipped, ...], may_be_empty: Sequence[str]
) -> None:
    """Raises UserError if a split has no image of a class, unless it may be empty and was left so."""
    left_out = "; ".join(f"{item.file}: {item.reason}" for item in skipped[:_NAMED_IN_ERRORS])
    because = f" {len(skipped)} file(s) were left out, such as {left_out}." if skipped else ""
    if not any(len(split) for split in splits.values()):
        raise UserError(f"{source.name}: no images at all.{because} Expected {source.expected}.")
    for name, split in splits.items():
        if not len(source.splits[name].files) and name in may_be_empty:
            continue
        counts = np.bincount(split.labels, minlength=len(source.classes))
        if not counts.all():
            empty = source.classes[int(np.argmin(counts))]
            raise UserError(
                f"{source.name}: no image of the class {empty} in {name}.{because} Every class needs an image in every "
                "split: add some, or remove the class from all splits."
            )
