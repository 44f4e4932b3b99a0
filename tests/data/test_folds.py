"""Folds: every image is tested once, groups are whole, classes are spread, and what is impossible is said."""

import csv
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from vision_transfer.data.folds import deal, named_groups
from vision_transfer.data.source import Examples
from vision_transfer.errors import UserError

FOLDS = st.integers(2, 6)
LABELS = st.lists(st.integers(0, 3), min_size=12, max_size=60).map(np.array)


def names(count):
    return [f"images/{number}.jpg" for number in range(count)]


@given(LABELS, FOLDS, st.integers(0, 2**32))
def test_without_groups_classes_and_sizes_differ_by_at_most_one(labels, folds, seed):
    dealt = deal(labels, names(len(labels)), folds, seed, np.arange(len(labels)))
    for label in np.unique(labels):
        counts = np.bincount(dealt[labels == label], minlength=folds)
        assert counts.max() - counts.min() <= 1
    assert set(dealt) <= set(range(folds))


@given(LABELS, FOLDS, st.data())
def test_no_group_is_divided_and_no_fold_has_much_more_than_its_share(labels, folds, data):
    groups = np.array(data.draw(st.lists(st.integers(0, 15), min_size=len(labels), max_size=len(labels))))
    dealt = deal(labels, names(len(labels)), folds, 0, groups)
    assert all(len(set(dealt[groups == group])) == 1 for group in groups)
    largest = np.bincount(groups).max()
    for label in np.unique(labels):
        counts = np.bincount(dealt[labels == label], minlength=folds)
        assert counts.max() <= np.sum(labels == label) / folds + largest


@given(st.permutations(range(24)))
def test_the_order_of_the_files_does_not_matter(order):
    labels, order = np.arange(24) % 3, np.array(order)
    files, groups = np.array(names(24)), np.arange(24) // 2
    dealt = dict(zip(files, deal(labels, list(files), 4, 1, groups), strict=True))
    shuffled = deal(labels[order], list(files[order]), 4, 1, groups[order])
    assert dealt == dict(zip(files[order], shuffled, strict=True))


def test_folds_are_about_as_balanced_as_those_of_scikit_learn():
    random = np.random.default_rng(0)
    groups = random.integers(0, 40, 300)
    labels = (groups + random.integers(0, 2, 300)) % 3

    def imbalance(dealt):
        table = np.zeros((5, 3))
        np.add.at(table, (dealt, labels), 1)
        return np.std(table / table.sum(axis=0), axis=0).sum()

    theirs = np.empty(300, int)
    for fold, (_, held) in enumerate(StratifiedGroupKFold(5).split(labels, labels, groups)):
        theirs[held] = fold
    assert imbalance(deal(labels, names(300), 5, 0, groups)) <= 1.1 * imbalance(theirs)


def test_each_image_is_the_test_of_one_fold_and_is_decoded_once(load, image_folder, tmp_path):
    whole = load(name="folder", root=image_folder, image_size=16)
    tested = []
    for fold in range(2):
        dataset = load(name="folder", root=image_folder, image_size=16, folds=2, fold=fold, validation_fraction=0.3)
        parts = [set(getattr(dataset, split).files) for split in ("train", "validation", "test")]
        assert sum(map(len, parts)) == len(set.union(*parts))
        assert set.union(*parts) == set(whole.train.files) | set(whole.validation.files), "not the data's own test"
        assert f"Fold {fold} of 2" in dataset.note
        for split in (dataset.train, dataset.validation, dataset.test):
            for file, label, digest in zip(split.files, split.labels, split.digests, strict=True):
                own = whole.train if file in whole.train.files else whole.validation
                place = own.files.index(file)
                assert (label, digest.tolist()) == (own.labels[place], own.digests[place].tolist())
        tested += dataset.test.files
    assert sorted(tested) == sorted((*whole.train.files, *whole.validation.files))


def test_the_final_run_has_the_images_of_all_folds_and_the_data_s_own_test(load, image_folder):
    whole = load(name="folder", root=image_folder, image_size=16)
    dataset = load(name="folder", root=image_folder, image_size=16, folds=2, validation_fraction=0.3)
    assert set(dataset.train.files) | set(dataset.validation.files) == set(whole.train.files + whole.validation.files)
    assert len(dataset.validation) == 4
    assert dataset.test.files == whole.test.files
    assert np.array_equal(dataset.test.images, whole.test.images)


def test_the_final_run_has_no_test_where_the_data_has_none(load, unsplit):
    dataset = load(root=unsplit, image_size=16, folds=2, validation_fraction=0)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (21, 0, 0)


def test_images_are_decoded_once_for_all_folds(load, image_folder, tmp_path):
    for fold in (0, 1, None):
        load(root=image_folder, image_size=16, folds=2, fold=fold, validation_fraction=0.3)
    decoded = [np.load(file, mmap_mode="r").shape[0] for file in (tmp_path / "cache" / "decoded").rglob("images.npy")]
    assert sorted(decoded) == [4, 10], "the data's own test, and the pool"


def test_near_duplicates_and_the_user_s_groups_are_in_one_fold(load, unsplit):
    pattern = r"/(\d)\d*\.png"
    for fold in range(2):
        dataset = load(root=unsplit, image_size=16, folds=2, fold=fold, grouped_by=pattern, validation_fraction=0)
        held = {file.split("/")[1][0] for file in dataset.test.files}
        assert not held & {file.split("/")[1][0] for file in (*dataset.train.files, *dataset.validation.files)}


@pytest.mark.parametrize("fields", [{"folds": 2, "fold": 0}, {"folds": 2, "fold": 1}, {}])
def test_equal_images_of_an_array_are_not_divided(load, tmp_path, fields):
    """As of a rare class that was repeated until it was as large as the others."""
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], 24)
    images = np.concatenate([random.integers(0, 256, (24, 8, 8)), np.repeat(random.integers(0, 256, (6, 8, 8)), 4, 0)])
    order = random.permutation(48)
    arrays = {
        "x_train": images[order].astype(np.uint8),
        "y_train": labels[order],
        "x_test": random.integers(0, 256, (4, 8, 8)).astype(np.uint8),
        "y_test": np.arange(4) % 2,
    }
    np.savez(tmp_path / "repeated.npz", **arrays)
    dataset = load(
        name="npz", root=tmp_path / "repeated.npz", image_size=8, channels=1, validation_fraction=0.25, **fields
    )
    splits = [
        {image.tobytes() for image in split.images} for split in (dataset.train, dataset.validation, dataset.test)
    ]
    assert not splits[0] & splits[1] and not splits[0] & splits[2] and not splits[1] & splits[2]
    assert len(dataset.validation)


def test_groups_that_the_data_s_own_splits_divide_are_named(load, image_folder):
    def warned(pattern):
        warnings = load(root=image_folder, image_size=16, grouped_by=pattern).warnings
        return [one for one in warnings if "groups are in several splits" in one]

    assert len(warned(r"([^/]+)/[^/]+$")) == 1, "a class is in all"
    assert warned(r"^(.*)$") == []
    with pytest.raises(UserError, match="no regular expression"):
        load(root=image_folder, image_size=16, grouped_by="(")


@pytest.mark.parametrize("missing", ["validation", "test"])
def test_divided_groups_are_named_where_a_split_is_held_out_too(load, image_folder, missing):
    shutil.rmtree(image_folder / missing)
    warnings = load(root=image_folder, image_size=16, grouped_by=r"([^/]+)\.[^/.]+$", validation_fraction=0.34).warnings
    assert sum("groups are in several splits" in one for one in warnings) == 1


def test_an_empty_match_names_no_group():
    files = ("12_a.jpg", "12_b.jpg", "_1.jpg", "_2.jpg", "other.jpg")
    examples = Examples(files, np.zeros(5, np.int64), None)
    assert named_groups(examples, r"^(\d*)_") == ["12", "12", None, None, None]


def test_groups_hold_for_splits_without_folds_too(load, unsplit):
    dataset = load(root=unsplit, image_size=16, grouped_by=r"/(\d)\d*\.png", test_fraction=0.4, validation_fraction=0)
    held = {file.split("/")[1][0] for file in dataset.test.files}
    assert not held & {file.split("/")[1][0] for file in dataset.train.files}


@pytest.mark.parametrize(("column", "grouped_by"), [("group", None), ("Patient", "patient")])
def test_a_table_s_column_names_groups(load, unsplit, tmp_path, column, grouped_by):
    table = unsplit / "images.csv"
    with table.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["path", "label", column])
        for name in ("cat", "dog"):
            for place, file in enumerate(sorted((unsplit / name).iterdir())):
                rows.writerow([f"{name}/{file.name}", name, f"{name} {place // 2}"])
    fields = {"image_size": 16, "folds": 2, "grouped_by": grouped_by, "validation_fraction": 0}
    sets = [load(root=table, fold=fold, **fields) for fold in range(2)]
    groups = {}
    for fold, dataset in enumerate(sets):
        for file in dataset.test.files:
            name = file.split("/")[0]
            place = sorted(path.name for path in (unsplit / name).iterdir()).index(file.split("/")[1])
            groups.setdefault((name, place // 2), set()).add(fold)
    assert all(len(folds) == 1 for folds in groups.values())
    for dataset in sets:
        # the probe, whose folds are of the training images, keeps them together by these names
        names = [file.split("/")[0] for file in dataset.train.files]
        assert [group.split()[0] for group in dataset.train.groups] == names
        assert len(dataset.train.take(np.array([2, 0])).groups) == 2


def test_groups_may_be_named_in_one_split_only(load, unsplit):
    table = unsplit / "images.csv"
    with table.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["path", "label", "split", "group"])
        for name in ("cat", "dog"):
            for place, file in enumerate(sorted((unsplit / name).iterdir())):
                split = "validation" if place == 0 else "train"
                rows.writerow([f"{name}/{file.name}", name, split, "" if place == 0 else f"{name} {place // 2}"])
    sets = [load(root=table, image_size=16, folds=2, fold=fold, validation_fraction=0) for fold in range(2)]
    assert sum(len(dataset.test) for dataset in sets) == len(sets[0].train) + len(sets[0].test)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"folds": 9, "fold": 0}, "at most [0-9]+ folds are possible"),
        ({"folds": 2, "fold": 0, "grouped_by": "^(.)"}, "no folds are possible|at most 1|try fewer folds"),
        ({"grouped_by": "patient-([0-9]+)"}, "matches none of 21 names"),
        ({"grouped_by": "("}, "no regular expression"),
    ],
)
def test_what_is_impossible_is_said(load, unsplit, fields, message):
    with pytest.raises(UserError, match=message):
        load(root=unsplit, image_size=16, **fields)


def test_a_column_that_is_not_there_is_named(load, unsplit):
    table = unsplit / "images.csv"
    table.write_text("path,label\ncat/0.png,cat\ndog/0.png,dog\n", encoding="utf-8")
    with pytest.raises(UserError, match="has no column 'patient'; it has path, label"):
        load(root=table, grouped_by="patient")
