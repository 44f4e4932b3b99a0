"""Groups of images that belong together, and folds: which part of a data set is the test of one run of several.

With folds, the training and validation images of a data set are dealt into parts of about equal size and mix of
classes. Run i is tested on part i, and trains and validates on the others, so that every image is predicted once by a
model that has neither trained on it nor chosen its epoch by it. A test split of the data's own is no part of that.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Int32, Integer

from vision_transfer.data.dataset import Split
from vision_transfer.data.source import Examples, Source, joined
from vision_transfer.data.subset import hash_names
from vision_transfer.errors import UserError


def together(splits: Mapping[str, Examples]) -> Examples:
    """The examples of all splits in the order of their names, which is the same for all folds."""
    every = joined(list(splits.values()))
    return every.take(np.array(sorted(range(len(every.files)), key=every.files.__getitem__), np.int32))


def pooled(source: Source, *, own_test: bool) -> Source:
    """The source with its training and validation images as one training split.

    With `own_test` its test split stays, and is empty where it has none: that is the data of the model that is trained
    on all folds.
    """
    splits = {"train": together({name: part for name, part in source.splits.items() if name != "test"})}
    if own_test:
        splits["test"] = source.splits.get("test") or splits["train"].take(np.zeros(0, np.int32))
    note = "Its own test split is no part of the folds." if "test" in source.splits else ""
    return replace(source, splits=splits).with_note(note)


def named_groups(examples: Examples | Split, pattern: str | None) -> list[str | None]:
    """The user's group of each example, such as a patient; None for an example that is alone.

    Groups that the data lists (a column of a table) are taken; otherwise a regular expression finds them in names: its
    first group, or all that it matches, names the group.

    Raises:
        UserError: it is no regular expression, or matches no name.
    """
    if examples.groups or pattern is None:
        return [name or None for name in examples.groups] or [None] * len(examples.files)
    try:
        expression = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise UserError(f"config.dataset.grouped_by: {pattern!r} is no regular expression ({error})") from error
    found = [expression.search(file) for file in examples.files]
    if not any(found):
        such = f", such as {examples.files[0]}" if examples.files else ""
        raise UserError(
            f"config.dataset.grouped_by: {pattern!r} matches none of {len(examples.files):,} names{such}; its first "
            "group (...) names what belongs together"
        )
    # An empty name is none, as in a table's column.
    return [None if match is None else match.group(1 if expression.groups else 0) or None for match in found]


def pairs_of_groups(groups: Sequence[str | None]) -> Int32[np.ndarray, "pairs 2"]:
    """For each example of a group but its first, the indices of both."""
    first: dict[str, int] = {}
    if groups.count(None) == len(groups):  # the loop takes a quarter of a second for 2 million
        return np.empty((0, 2), np.int32)
    pairs = [(first.setdefault(name, place), place) for place, name in enumerate(groups) if name is not None]
    return np.array([pair for pair in pairs if pair[0] != pair[1]], np.int32).reshape(-1, 2)


def deal(
    labels: Integer[np.ndarray, "examples"],
    names: Sequence[str],
    folds: int,
    seed: int,
    groups: Integer[np.ndarray, "examples"],
) -> Int32[np.ndarray, "examples"]:
    """The fold of each example: groups whole, the largest first, each to the fold that it leaves most balanced.

    Balance is the sum over classes of squared shares of the class in the fold; among equals the fold with the fewest
    images, then the first, gets the group. Groups of equal size come in the order of a hash of seed and names. `labels`
    count from 0; `groups` has the number of each example's group.
    """
    hashes = hash_names(names, "fold", seed)
    order = np.lexsort((hashes, groups))
    members = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1) if len(order) else []
    members.sort(key=lambda places: (-len(places), hashes[places].min(), places[0]))
    totals = np.maximum(np.bincount(labels), 1)
    counts = np.zeros((folds, len(totals)))
    dealt = np.empty(len(labels), np.int32)
    for places in members:
        own = np.bincount(labels[places], minlength=len(totals))
        # The growth of the sum of squares: 2 · count · own + own², of which the last is the same for all folds.
        growth = counts @ (own / totals**2)
        fold = min(range(folds), key=lambda one: (round(growth[one], 12), counts[one].sum(), one))
        counts[fold] += own
        dealt[places] = fold
    return dealt


def check_folds(
    folds: int,
    labels: Integer[np.ndarray, "examples"],
    groups: Integer[np.ndarray, "examples"],
    dealt: Integer[np.ndarray, "examples"],
    classes: Sequence[str],
) -> None:
    """Checks that each fold has every class.

    Raises:
        UserError: a class has fewer images, or groups of images, than folds, or no such folds were found.
    """
    available = [len(np.unique(groups[labels == label])) for label in range(len(classes))]
    smallest = int(np.argmin(available))
    grouped = len(np.unique(groups)) < len(labels)
    what = "groups of images that stay together" if grouped else "images"
    if available[smallest] < folds:
        most = available[smallest]
        advice = f"at most {most} folds are possible" if most > 1 else "with one, no folds are possible"
        raise UserError(
            f"config.dataset.folds: got {folds}; the class {classes[smallest]} has {most} {what}, and every fold needs "
            f"one of each class; {advice}"
        )
    table = np.zeros((folds, len(classes)), np.int64)
    np.add.at(table, (dealt, labels), 1)
    if not table.all():
        fold, label = (int(place) for place in np.argwhere(table == 0)[0])
        raise UserError(
            f"config.dataset.folds: got {folds}; with these groups fold {fold} has no image of {classes[label]}; try "
            "fewer folds, or another config.dataset.split_seed"
        )


def with_fold_as_test(
    pool: Source, fold: int, folds: int, seed: int, groups: Int32[np.ndarray, "examples"]
) -> tuple[Source, Int32[np.ndarray, "kept"]]:
    """The pooled source with a fold as its test split; and the indices of the training images that are left."""
    train = pool.splits["train"]
    dealt = deal(train.labels, train.files, folds, seed, groups)
    check_folds(folds, train.labels, groups, dealt, pool.classes)
    held, kept = np.flatnonzero(dealt == fold).astype(np.int32), np.flatnonzero(dealt != fold).astype(np.int32)
    splits = {"train": train.take(kept), "test": train.take(held)}
    note = f"Fold {fold} of {folds}, {len(held):,} of {len(train.files):,} images, is the test of this run."
    return replace(pool, splits=splits).with_note(note), kept


def taken(decoded: Split, splits: Mapping[str, Examples]) -> dict[str, Split]:
    """The decoded images of a pool as splits, by the names of their files."""
    places = {file: place for place, file in enumerate(decoded.files)}
    rows = {
        name: np.array([places[file] for file in examples.files if file in places], np.int32)
        for name, examples in splits.items()
    }
    return {name: decoded.take(chosen) for name, chosen in rows.items()}
