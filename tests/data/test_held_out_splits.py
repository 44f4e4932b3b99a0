"""Splits that are made here: class by class, near-duplicates on one side, the same on every machine."""

import shutil

import numpy as np
import pytest
from PIL import Image

from vision_transfer.data import load as load_module
from vision_transfer.data.images import near_duplicates
from vision_transfer.errors import UserError

SPLITS = ("train", "validation", "test")


def test_a_missing_validation_split_is_held_out(load, image_folder, write_image):
    shutil.rmtree(image_folder / "validation")
    dataset = load(name="folder", root=image_folder, image_size=16, validation_fraction=0.34)
    assert np.bincount(dataset.train.labels).tolist() == [2, 2]
    assert np.bincount(dataset.validation.labels).tolist() == [1, 1]
    assert not set(dataset.train.files) & set(dataset.validation.files)
    assert "2 of the 6 training images" in dataset.note
    empty = load(name="folder", root=image_folder, image_size=16, validation_fraction=0.0)
    assert len(empty.validation) == 0
    assert len(empty.train) == 6
    assert "left empty" in empty.note
    assert empty.fingerprint != dataset.fingerprint


def test_an_unsplit_folder_is_split_class_by_class(load, unsplit):
    dataset = load(name="auto", root=unsplit, image_size=16, test_fraction=0.25, validation_fraction=0.2)
    assert dataset.classes == ("bird", "cat", "dog")
    assert np.bincount(dataset.test.labels).tolist() == [1, 3, 2]
    assert np.bincount(dataset.validation.labels).tolist() == [1, 2, 1]
    assert np.bincount(dataset.train.labels).tolist() == [1, 7, 3]
    files = [file for split in SPLITS for file in getattr(dataset, split).files]
    assert len(set(files)) == 21
    assert "6 of the 21 training images" in dataset.note
    assert "no two of them belong together" in dataset.note
    other = load(name="auto", root=unsplit, image_size=16, test_fraction=0.25, validation_fraction=0.2, split_seed=1)
    assert other.test.files != dataset.test.files
    assert other.fingerprint != dataset.fingerprint
    # The same at another size, and from the cache of thumbnails.
    assert load(root=unsplit, image_size=8, test_fraction=0.25).test.files == dataset.test.files


def test_near_duplicates_stay_together(load, unsplit):
    for number in range(8):
        with Image.open(unsplit / f"cat/{number % 2}.png") as image:
            image.save(unsplit / f"cat/copy {number}.jpg", quality=95)
    dataset = load(root=unsplit, image_size=16)
    assert "10 that belong together, in 2 groups, are not divided" in dataset.note
    for number in range(2):
        group = {f"cat/{number}.png", *(f"cat/copy {copy}.jpg" for copy in range(number, 8, 2))}
        assert sum(bool(group & set(getattr(dataset, split).files)) for split in SPLITS) == 1
    apart = load(root=unsplit, image_size=16, group_near_duplicates=False)
    assert "near-duplicates" not in apart.note


def test_equal_files_stay_together_in_any_case(load, unsplit):
    for number in range(12):
        shutil.copy(unsplit / f"cat/{number}.png", unsplit / f"cat/same {number}.png")
    dataset = load(root=unsplit, image_size=16, test_fraction=0.4, group_near_duplicates=False)
    for split in SPLITS:
        files = {file for file in getattr(dataset, split).files if file.startswith("cat/")}
        assert {file.replace("same ", "") for file in files} == {file for file in files if "same" not in file}


@pytest.mark.parametrize("way", ["equal files", "grouped_by"])
def test_a_class_whose_images_all_stay_together_is_named(load, unsplit, way):
    given = {}
    if way == "equal files":
        for number in range(1, len(list((unsplit / "bird").iterdir()))):
            shutil.copy(unsplit / "bird/0.png", unsplit / f"bird/{number}.png")
    else:
        given = {"grouped_by": "^bird"}
    count = len(list((unsplit / "bird").iterdir()))
    message = rf"no image of the class bird can be held out for test: its {count} images are in 1 group of images"
    with pytest.raises(UserError, match=message):
        load(root=unsplit, image_size=16, **given)


def test_two_groups_of_each_class_leave_validation_empty(load, unsplit):
    shutil.rmtree(unsplit / "bird")
    dataset = load(root=unsplit, image_size=16, grouped_by=r"^(\w+/(?:0|[1-9]))", test_fraction=0.2)
    assert len(dataset.validation) or len(dataset.test)
    for name in ("cat", "dog"):
        for file in (unsplit / name).iterdir():
            file.rename(file.with_name(f"{int(file.stem) % 2}_{file.name}"))
    dataset = load(root=unsplit, image_size=16, grouped_by=r"^(\w+/\d)_")
    assert not len(dataset.validation) and set(dataset.test.labels) == set(dataset.train.labels) == {0, 1}


def test_damaged_thumbnails_and_pairs_are_made_again(load, unsplit, tmp_path):
    before = load(root=unsplit, image_size=16)
    for kind in ("near_duplicates", "thumbnails"):
        (file,) = (tmp_path / "cache" / kind).iterdir()
        content = file.read_bytes()
        for damaged in (content[:-1], content[:16] + b"?" + content[17:], b""):
            shutil.rmtree(tmp_path / "cache/near_duplicates")  # which need no thumbnails
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(damaged)
            assert load(root=unsplit, image_size=16).test.files == before.test.files
            assert file.read_bytes() == content


def test_pairs_are_looked_for_once(load, unsplit, monkeypatch):
    for number in range(8):
        with Image.open(unsplit / f"cat/{number % 2}.png") as image:
            image.save(unsplit / f"cat/copy {number}.jpg", quality=95)
    (unsplit / "cat/copy 3.jpg").write_bytes((unsplit / "cat/copy 3.jpg").read_bytes()[:300])  # does not decode
    before = load(root=unsplit, image_size=16)
    assert "9 that belong together, in 2 groups, are not divided" in before.note
    monkeypatch.setattr(near_duplicates, "load_thumbnails", None)
    again = load(root=unsplit, image_size=16)
    assert (again.fingerprint, again.note, again.skipped) == (before.fingerprint, before.note, before.skipped)


def test_near_duplicates_that_nobody_asked_for_cost_nothing(load, unsplit, tmp_path):
    broken = unsplit / "cat/0.png"
    broken.write_bytes(broken.read_bytes()[:60])
    dataset = load(root=unsplit, image_size=16, group_near_duplicates=False)
    assert [item.file for item in dataset.skipped] == ["cat/0.png"]
    assert not any((tmp_path / "cache" / kind).exists() for kind in ("near_duplicates", "thumbnails"))


def test_a_thousand_classes(load, tmp_path):
    """Three images of sixteen pixels each."""
    random, root = np.random.default_rng(0), tmp_path / "many"
    for label in range(1000):
        (root / f"class {label:04}").mkdir(parents=True)
        for number in range(3):
            pixels = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / f"class {label:04}" / f"{number}.bmp")
    dataset = load(root=root, image_size=4)
    assert len(dataset.classes) == 1000
    for split in SPLITS:
        assert np.bincount(getattr(dataset, split).labels).tolist() == [1] * 1000


def test_what_is_held_out_of_many_is_found_again(load, unsplit, monkeypatch):
    def splits(seed):
        dataset = load(name="folder", root=unsplit, image_size=16, validation_fraction=0.2, split_seed=seed)
        return [dataset.train.files, dataset.validation.files, dataset.test.files]

    expected = [splits(seed) for seed in (0, 1)]
    calls, hold_out = [], load_module.hold_out
    monkeypatch.setattr(load_module, "_MANY", 1)
    monkeypatch.setattr(load_module, "hold_out", lambda *given: calls.append(given[3]) or hold_out(*given))
    assert [splits(seed) for seed in (0, 0, 1, 1)] == [expected[seed] for seed in (0, 0, 1, 1)]
    assert calls == ["test", "validation"] * 2
