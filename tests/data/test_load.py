"""Loading a data set: which data is used, in what form, and what is reported."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from sklearn.datasets import load_digits

from vision_transfer.config.schema import DatasetConfig
from vision_transfer.data.dataset import digest_image
from vision_transfer.data.images.resize import resize_bilinear
from vision_transfer.data.load import load_dataset
from vision_transfer.data.rows import StoredRows, TakenRows
from vision_transfer.errors import UserError
from vision_transfer.runtime.console import Screen

SPLITS = ("train", "validation", "test")
needs_data = pytest.mark.skipif("VISION_TRANSFER_DATA" not in os.environ, reason="VISION_TRANSFER_DATA is not set")


@pytest.fixture
def no_data(monkeypatch):
    monkeypatch.delenv("VISION_TRANSFER_DATA", raising=False)


def test_embedded_digits(load):
    dataset = load(name="embedded")
    assert dataset.classes == tuple("0123456789")
    assert [len(getattr(dataset, split)) for split in SPLITS] == [600, 200, 997]
    assert np.bincount(dataset.train.labels).tolist() == [60] * 10
    assert np.bincount(dataset.validation.labels).tolist() == [20] * 10
    digits = load_digits()
    seen = []
    for split in (getattr(dataset, name) for name in SPLITS):
        assert split.images.shape[1:] == (48, 48, 3)
        for row in range(0, len(split), 50):
            index = int(split.files[row].removeprefix("digits/"))
            grey = np.rint(digits.images[index] / 16 * 255).astype(np.uint8)[..., None]
            expected = np.repeat(np.rint(resize_bilinear(grey, 48, 48)), 3, axis=2)
            np.testing.assert_array_equal(split.images[row], expected)
            assert split.labels[row] == digits.target[index]
            assert split.digests[row].tobytes() == digest_image(split.images[row])
        seen += split.files
    assert len(set(seen)) == len(seen) == 1797


def test_embedded_digits_never_change(load):
    dataset = load(name="embedded")
    # Numbers in the README hang on this choice of images.
    assert dataset.train.files[:4] == ("digits/1", "digits/2", "digits/5", "digits/6")
    assert dataset.fingerprint == "e6b9e7a270a8ffb91574eb041f3927d2"


def test_example_ids_are_of_content(load):
    dataset = load(name="embedded")
    ids = dataset.test.example_ids
    assert ids.dtype == np.uint32
    assert ids.shape == (997,)
    row = 5
    assert ids[row] == int.from_bytes(digest_image(dataset.test.images[row])[:4], "little")
    chosen = dataset.test.take(np.array([7, 3]))
    np.testing.assert_array_equal(chosen.example_ids, ids[[7, 3]])
    assert chosen.files == (dataset.test.files[7], dataset.test.files[3])


def test_a_subset_of_cached_images_copies_none_of_them(load, image_folder):
    whole = load(root=image_folder, image_size=12).train
    part = load(root=image_folder, image_size=12, train_examples=4).train
    fewer = part.take(np.array([3, 1]))
    for split in (part, fewer):
        assert isinstance(split.images, TakenRows)
        assert isinstance(split.images.rows, StoredRows)
        assert split.images.shape == (len(split), 12, 12, 3)
        for row, file in enumerate(split.files):
            np.testing.assert_array_equal(split.images[row], whole.images[whole.files.index(file)])
    np.testing.assert_array_equal(fewer.images, part.images[np.array([3, 1])])


def test_grey_and_size(load):
    dataset = load(name="embedded", channels=1, image_size=20)
    assert dataset.train.images.shape == (600, 20, 20, 1)


def test_auto_without_data_takes_the_digits_and_says_how_to_get_the_other(load, no_data):
    dataset = load()
    assert dataset.name == "embedded digits"
    assert "make_subset" in dataset.note
    assert "VISION_TRANSFER_DATA is not set" in dataset.note


def test_auto_with_data_elsewhere(load, monkeypatch, tmp_path):
    monkeypatch.setenv("VISION_TRANSFER_DATA", str(tmp_path))
    dataset = load()
    assert dataset.name == "embedded digits"
    assert f"({tmp_path}) has no folder cats_vs_dogs_small" in dataset.note


def test_auto_finds_cats_and_dogs(load, image_folder, monkeypatch, tmp_path):
    image_folder.rename(tmp_path / "cats_vs_dogs_small")
    monkeypatch.setenv("VISION_TRANSFER_DATA", str(tmp_path))
    found = load(image_size=16)
    assert found.name == "cats_vs_dogs_small"
    assert "--config.dataset.name=embedded" in found.note
    monkeypatch.delenv("VISION_TRANSFER_DATA")
    for root in (tmp_path, tmp_path / "cats_vs_dogs_small"):
        assert load(root=root, image_size=16).fingerprint == found.fingerprint


def test_auto_with_a_root_never_falls_back(load, tmp_path, no_data):
    with pytest.raises(UserError, match="there is no folder"):
        load(root=tmp_path / "nowhere")


def test_a_folder_is_224_pixels_by_default(load, image_folder):
    dataset = load(name="folder", root=image_folder)
    assert dataset.train.images.shape == (6, 224, 224, 3)
    assert dataset.classes == ("cat", "dog")


def test_left_out_files_are_listed(load, image_folder):
    (image_folder / "train/cat/notes.txt").write_text("these are cats")
    (image_folder / "train/cat/empty.png").touch()
    skipped = load(name="folder", root=image_folder, image_size=16).skipped
    assert {item.file for item in skipped} == {"train/cat/notes.txt", "train/cat/empty.png"}
    # From the cache too.
    assert load(name="folder", root=image_folder, image_size=16).skipped == skipped


@pytest.mark.parametrize("split", SPLITS)
def test_an_empty_class_is_an_error(load, image_folder, split):
    for path in (image_folder / split / "dog").iterdir():
        path.write_text("no dog")
    with pytest.raises(
        UserError, match=rf"no image of the class dog in {split}.*were left out, such as {split}/dog/dog"
    ):
        load(name="folder", root=image_folder, image_size=16)


def test_no_images_at_all(load, image_folder):
    for path in image_folder.rglob("*.png"):
        path.unlink()
    with pytest.raises(UserError, match="no images at all"):
        load(name="folder", root=image_folder, image_size=16)


def test_a_file_in_two_splits_is_refused(load, image_folder):
    shutil.copy(image_folder / "train/cat/cat.1.png", image_folder / "test/dog/other.png")
    with pytest.raises(UserError, match=r"share 1 file.*train/cat/cat.1.png and test/dog/other.png"):
        load(name="folder", root=image_folder, image_size=16)


def test_too_many_classes(load, unsplit, monkeypatch):
    monkeypatch.setattr("vision_transfer.data.load.MAX_CLASSES", 2)
    with pytest.raises(UserError, match="has 3 classes; at most 2 are allowed"):
        load(root=unsplit)


def test_subsets_are_balanced_and_nested(load):
    whole = load(name="embedded")
    small, large = (load(name="embedded", train_examples=count, subset_seed=4).train for count in (30, 100))
    assert np.bincount(small.labels).tolist() == [3] * 10
    assert set(small.files) < set(large.files) < set(whole.train.files)
    np.testing.assert_array_equal(small.images[0], whole.train.images[whole.train.files.index(small.files[0])])
    # The same images at every size.
    assert load(name="embedded", train_examples=30, subset_seed=4, image_size=8).train.files == small.files
    assert load(name="embedded", train_examples=30, subset_seed=5).train.files != small.files


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"name": "imagnet"}, "dataset.name is 'imagnet'"),
        ({"name": "mnits"}, "did you mean mnist"),
        ({"name": "folder"}, "--config.dataset.root is empty"),
        ({"name": "embedded", "test_fraction": 0.0}, "dataset.test_fraction is 0.0"),
        ({"name": "embedded", "train_examples": 601}, "dataset.train_examples is 601; there are 600"),
        ({"name": "embedded", "train_examples": 0}, "dataset.train_examples is 0"),
        ({"name": "npz", "root": Path("/nowhere")}, "no file or folder /nowhere"),
        ({"name": "idx", "root": Path("/nowhere")}, "no folder /nowhere"),
        ({"name": "folder", "root": Path("/" + "x" * 5000)}, "no folder"),
        ({"name": "folder", "root": Path("/x\0y")}, "no folder"),
    ],
)
def test_bad_requests(load, request_, message):
    with pytest.raises(UserError, match=message):
        load(**request_)


def test_a_known_data_set_that_is_nowhere(load, no_data):
    with pytest.raises(UserError, match=r"cifar10: it is not on this machine .*--mode=fetch"):
        load(name="cifar10")


@needs_data
def test_the_classic_data(tmp_path):
    root = Path(os.environ["VISION_TRANSFER_DATA"]) / "cats_vs_dogs_small"
    if not root.is_dir():
        pytest.skip("VISION_TRANSFER_DATA has no cats_vs_dogs_small")
    dataset = load_dataset(
        DatasetConfig(image_size=32, channels=1), cache_dir=tmp_path, screen=Screen(Console(quiet=True))
    )
    assert [len(getattr(dataset, split)) for split in SPLITS] == [2000, 1000, 1000]
    assert dataset.skipped == ()
    digests = np.concatenate([getattr(dataset, split).digests for split in SPLITS])
    assert len(np.unique(digests, axis=0)) == 4000


@needs_data
@pytest.mark.parametrize(
    ("name", "sizes", "shape", "train_counts"),
    [
        ("cifar10", (4500, 500, 1000), (32, 32, 3), [450] * 10),
        ("sign_language_digits", (1712, 300, 50), (16, 16, 3), [170, 171, 171, 171, 172, 172, 172, 171, 173, 169]),
    ],
)
def test_known_data(tmp_path, name, sizes, shape, train_counts):
    request = DatasetConfig(name=name, image_size=shape[0])
    dataset = load_dataset(request, cache_dir=tmp_path, screen=Screen(Console(quiet=True)))
    assert tuple(len(getattr(dataset, split)) for split in SPLITS) == sizes
    assert dataset.train.images.shape[1:] == shape
    assert np.bincount(dataset.train.labels).tolist() == train_counts


@needs_data
def test_mnist_is_complete_and_in_order(tmp_path):
    request = DatasetConfig(name="mnist", channels=1, validation_fraction=0)
    dataset = load_dataset(request, cache_dir=tmp_path, screen=Screen(Console(quiet=True)))
    assert dataset.train.images.shape == (60_000, 28, 28, 1)
    assert dataset.test.images.shape == (10_000, 28, 28, 1)
    # The published labels and counts.
    assert dataset.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert np.bincount(dataset.train.labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(dataset.test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert dataset.train.files[59_999] == "train/59999"
    # Mean of all training pixels, as published in many places: 0.1307.
    assert abs(np.asarray(dataset.train.images).mean() / 255 - 0.1307) < 1e-4
