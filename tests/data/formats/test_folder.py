"""Class folders: what is found, left out and rejected."""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from vision_transfer.data.formats import image_files
from vision_transfer.data.formats.folder import folder_source, looks_like_split
from vision_transfer.data.source import fingerprint
from vision_transfer.errors import UserError
from vision_transfer.runtime import stamps

SPLITS = ("train", "validation", "test")


def test_classes_and_files_are_sorted(image_folder, write_image, screen):
    write_image(image_folder / "train/cat/a/deep.png", 50)
    source = folder_source(image_folder, screen)
    assert source.name == "pets"
    assert source.classes == ("cat", "dog")
    train = source.splits["train"]
    assert train.files == (
        *(f"train/cat/cat.{number}.png" for number in range(3)),
        "train/cat/a/deep.png",
        *(f"train/dog/dog.{number}.png" for number in range(3)),
    )
    assert train.labels.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert train.labels.dtype == np.int32
    assert source.skipped == ()


def test_pixels_belong_to_their_names(image_folder, write_image, screen):
    expected = write_image(image_folder / "test/dog/dog.1.png", 77)
    test = folder_source(image_folder, screen).splits["test"]
    np.testing.assert_array_equal(test.pixels(test.files.index("test/dog/dog.1.png"), 3), expected)


@pytest.mark.parametrize("name", ["valid", "val", "VAL", "dev", "Valid-Set"])
def test_other_names_of_validation(image_folder, screen, name):
    (image_folder / "validation").rename(image_folder / name)
    source = folder_source(image_folder, screen)
    assert source.splits["validation"].files[0] == f"{name}/cat/cat.0.png"
    assert list(source.splits) == ["train", "validation", "test"]


def test_other_names_of_the_other_splits(image_folder, screen):
    (image_folder / "train").rename(image_folder / "Training")
    (image_folder / "test").rename(image_folder / "testing")
    source = folder_source(image_folder, screen)
    assert [examples.files[0].split("/")[0] for examples in source.splits.values()] == [
        "Training",
        "validation",
        "testing",
    ]
    assert source.warnings == ()


def test_the_fingerprint_is_of_content_alone(image_folder, tmp_path, write_image, screen):
    before = fingerprint(folder_source(image_folder, screen))
    copy = tmp_path / "else where" / "ünïcode"
    shutil.copytree(image_folder, copy, copy_function=shutil.copyfile)
    os.utime(copy / "train/cat/cat.0.png", (1, 1))
    assert fingerprint(folder_source(copy, screen)) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "train/cat/cat.0.png").unlink(),
        lambda root: (root / "train/cat/cat.0.png").rename(root / "train/cat/cat.9.png"),
        lambda root: (root / "train/cat/cat.0.png").rename(root / "train/dog/cat.0.png"),
        lambda root: (root / "validation/cat/cat.0.png").rename(root / "train/cat/cat.8.png"),
        lambda root: (root / "test/dog/dog.0.png").write_bytes((root / "test/dog/dog.0.png").read_bytes() + b"\0"),
        lambda root: [
            (root / split / "dog").rename(root / split / "wolf") for split in ("train", "validation", "test")
        ],
        # Two files of one class exchange their content: the same bytes and the same names.
        lambda root: exchange(root / "train/cat/cat.0.png", root / "train/cat/cat.1.png"),
        lambda root: exchange(root / "train/cat/cat.0.png", root / "train/dog/dog.0.png"),
    ],
)
def test_the_fingerprint_notices(image_folder, screen, change):
    before = fingerprint(folder_source(image_folder, screen))
    change(image_folder)
    assert fingerprint(folder_source(image_folder, screen)) != before


def exchange(first, second):
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)


def test_what_cannot_be_an_image_is_left_out_with_its_reason(image_folder, screen):
    cats = image_folder / "train" / "cat"
    os.mkfifo(cats / "fifo.jpg")
    (cats / "loop.jpg").symlink_to("loop.jpg")
    (cats / "dangling.jpg").symlink_to("nowhere.jpg")
    (cats / "empty.jpg").touch()
    (cats / ".hidden.jpg").write_bytes(b"whatever")
    (cats / ".folder").mkdir()
    (cats / "ring").symlink_to(cats)
    with (cats / "huge.jpg").open("wb") as file:
        file.truncate(200 * 2**20)
    source = folder_source(image_folder, screen)
    reasons = {item.file.removeprefix("train/cat/"): item.reason for item in source.skipped}
    assert set(reasons) == {"fifo.jpg", "loop.jpg", "dangling.jpg", "empty.jpg", "ring", "huge.jpg"}
    assert reasons["fifo.jpg"] == "not a regular file"
    assert "Too many levels" in reasons["loop.jpg"]
    assert "No such file" in reasons["dangling.jpg"]
    assert reasons["empty.jpg"] == "empty file"
    assert "already read" in reasons["ring"]
    assert "209,715,200 bytes" in reasons["huge.jpg"]
    assert len(source.splits["train"].files) == 6


def test_links_to_files_and_folders_are_followed(image_folder, tmp_path, write_image, screen):
    write_image(tmp_path / "elsewhere/more.png", 90)
    (image_folder / "train/cat/linked.png").symlink_to(tmp_path / "elsewhere/more.png")
    (image_folder / "train/dog/linked").symlink_to(tmp_path / "elsewhere")
    source = folder_source(image_folder, screen)
    assert source.skipped == ()
    assert "train/cat/linked.png" in source.splits["train"].files
    assert "train/dog/linked/more.png" in source.splits["train"].files


def test_many_links_to_each_other_end(image_folder, screen):
    cats = image_folder / "train" / "cat"
    for number in range(30):  # 2**30 ways through them.
        (cats / f"level{number}").mkdir()
    for number in range(29):
        for name in "ab":
            (cats / f"level{number}" / name).symlink_to(cats / f"level{number + 1}")
    began = time.monotonic()
    assert len(folder_source(image_folder, screen).splits["train"].files) == 6
    assert time.monotonic() - began < 5


def test_folders_deeper_than_pythons_stack(image_folder, screen):
    top = image_folder / "train" / "cat" / "deep"
    # The names of one level take two characters, and a path may have 4,095.
    # Made and removed by commands: Python 3.11 does both recursively.
    subprocess.run(["mkdir", "-p", top / "/".join("d" * 1100)], check=True)
    try:
        assert len(folder_source(image_folder, screen).splits["train"].files) == 6
    finally:
        subprocess.run(["rm", "-r", top], check=True)


def test_names_that_are_not_utf8(image_folder, screen):
    name = os.fsdecode(b"caf\xe9.png")
    try:
        (image_folder / "train/cat/cat.0.png").rename(image_folder / "train/cat" / name)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    train = folder_source(image_folder, screen).splits["train"]
    place = train.files.index("train/cat/caf\\xe9.png")
    assert train.pixels(place, 3).shape == (20, 16, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: shutil.rmtree(root), "there is no folder"),
        (lambda root: (shutil.rmtree(root), root.touch()), "there is no folder"),
        (lambda root: shutil.rmtree(root / "train"), r"has no folder train \(it contains test, validation\)"),
        (
            lambda root: shutil.copytree(root / "validation", root / "val"),
            r"several validation folders \(val, validation\)",
        ),
        (lambda root: shutil.rmtree(root / "validation/dog"), "validation has no folder for the class dog"),
        (lambda root: (root / "test/bird").mkdir(), "train has no folder for the class bird"),
        (
            lambda root: [shutil.rmtree(root / split / "dog") for split in SPLITS],
            "has only the class cat",
        ),
        (
            lambda root: [shutil.rmtree(root / split / name) for split in SPLITS for name in ("cat", "dog")],
            "no class folders",
        ),
    ],
)
def test_what_is_refused(image_folder, screen, change, message):
    change(image_folder)
    with pytest.raises(UserError, match=message) as raised:
        folder_source(image_folder, screen)
    assert str(raised.value).startswith("--config.dataset.root: ")


def test_a_folder_without_splits_is_all_train(image_folder, screen):
    source = folder_source(image_folder / "train", screen)
    assert list(source.splits) == ["train"]
    assert source.classes == ("cat", "dog")
    assert source.splits["train"].files[0] == "cat/cat.0.png"


def test_splits_that_are_missing_are_left_to_be_held_out(image_folder, screen):
    shutil.rmtree(image_folder / "test")
    assert list(folder_source(image_folder, screen).splits) == ["train", "validation"]


def test_a_class_may_be_named_like_a_split_beside_others(image_folder, screen):
    (image_folder / "train/dog").rename(image_folder / "train/Testing")
    source = folder_source(image_folder / "train", screen)
    assert source.classes == ("Testing", "cat")
    assert looks_like_split("Testing")
    assert not looks_like_split("cat")


def test_a_class_of_trains_is_no_split(tmp_path, write_image, screen):
    for name in ("train", "bus"):
        for number in range(2):
            write_image(tmp_path / "vehicles" / name / f"{number}.png", number)
    assert folder_source(tmp_path / "vehicles", screen).classes == ("bus", "train")


def test_what_is_not_read_is_named(image_folder, write_image, screen):
    (image_folder / "bird").mkdir()
    (image_folder / "training").mkdir()
    write_image(image_folder / "loose.png", 1)
    write_image(image_folder / "train/one", 2, "PNG")
    write_image(image_folder / "train/two.jpg", 3, "JPEG")
    (image_folder / "notes.txt").write_text("not an image, and nobody expects it to be read")
    assert folder_source(image_folder, screen).warnings == (
        "the folder bird is beside train and is not read",
        "the folder training is beside train and is not read",
        "1 image file in pets outside of the class folders: not read (such as loose.png)",
        "2 image files in train outside of the class folders: not read (such as one)",
    )


def test_equal_folders_in_every_class_are_pointed_out(tmp_path, write_image, screen):
    for year in ("2022", "2023"):
        for name in ("cat", "dog"):
            write_image(tmp_path / "pets" / year / name / "0.png", int(year) + len(name))
    (warning,) = folder_source(tmp_path / "pets", screen).warnings
    assert "the classes are 2022, 2023, and each has the folders cat, dog" in warning


def test_system_files_and_folders_are_passed_over(image_folder, write_image, screen):
    before = folder_source(image_folder, screen)
    write_image(image_folder / "train/cat/@eaDir/cat.0.png/SYNOPHOTO_THUMB_M.jpg", 1, "JPEG")
    write_image(image_folder / "train/cat/.ipynb_checkpoints/cat.0-checkpoint.png", 2)
    write_image(image_folder / "__MACOSX/cat/1.png", 3)
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._cat.0.png"):
        (image_folder / "train/cat" / name).write_bytes(b"whatever")
    after = folder_source(image_folder, screen)
    assert fingerprint(after) == fingerprint(before)
    assert after.skipped == ()
    assert after.warnings == ()


def test_files_are_taken_by_their_content(image_folder, write_image, screen):
    write_image(image_folder / "train/cat/no ending", 90, "PNG")
    write_image(image_folder / "train/cat/web.jfif", 91, "JPEG")
    write_image(image_folder / "train/cat/scan.ppm", 92, "PPM")
    (image_folder / "train/cat/page.jpg").write_text("<!DOCTYPE html><title>Not found</title>")
    (image_folder / "train/cat/notes.txt").write_text("a text")
    source = folder_source(image_folder, screen)
    assert len(source.splits["train"].files) == 9
    assert {item.file: item.reason for item in source.skipped} == {
        "train/cat/notes.txt": "not an image (a text)",
        "train/cat/page.jpg": "not an image but an HTML page, as a failed download leaves it: get it again",
    }


@pytest.mark.parametrize("other", ["caf\u0065\u0301", "caf\u00e9 ", "  caf\u00e9"])
def test_names_equal_to_the_eye_are_one_class(image_folder, screen, other):
    for split in SPLITS:
        (image_folder / split / "cat").rename(image_folder / split / (other if split == "test" else "caf\u00e9"))
    source = folder_source(image_folder, screen)
    assert source.classes == ("caf\u00e9", "dog")
    assert np.bincount(source.splits["test"].labels).tolist() == [2, 2]
    (image_folder / "train/caf\u0065\u0301  ").mkdir()
    with pytest.raises(UserError, match=r"has the folders 'cafe\\u0301  ' and 'caf\u00e9'"):
        folder_source(image_folder, screen)


@pytest.mark.parametrize(
    ("one", "other"), [("Cat", "cat"), ("cat", "c\u00e1t"), ("my  cat", "my cat"), ("cat", "cat\u200b")]
)
def test_classes_that_look_alike_are_refused_in_quotes(image_folder, screen, one, other):
    for split in SPLITS:
        (image_folder / split / "cat").rename(image_folder / split / one)
        (image_folder / split / "dog").rename(image_folder / split / other)
    with pytest.raises(UserError, match=f"the classes '{one}' and '{other}' differ only in") as raised:
        folder_source(image_folder, screen)
    assert "names that are easier to tell apart" in str(raised.value)


@pytest.mark.parametrize(("one", "other"), [("a", "A"), ("\u304b", "\u304c"), ("11", "1 1"), ("cat 1", "cat 2")])
def test_classes_that_are_two(image_folder, screen, one, other):
    for split in SPLITS:
        (image_folder / split / "cat").rename(image_folder / split / one)
        (image_folder / split / "dog").rename(image_folder / split / other)
    assert set(folder_source(image_folder, screen).classes) == {one, other}


def test_messages_that_lead_on(image_folder, write_image, tmp_path, screen):
    shutil.rmtree(image_folder / "test")
    write_image(image_folder / "test/1.png", 1)
    with pytest.raises(UserError, match=r"in no class folders\. If nobody labelled them \(as in Kaggle"):
        folder_source(image_folder, screen)
    (tmp_path / "pets.zip").write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError, match="is an archive: unpack it"):
        folder_source(tmp_path / "pets.zip", screen)
    flat = tmp_path / "flat"
    write_image(flat / "1.png", 1)
    with pytest.raises(UserError, match=r"no class folders in .*flat but 1 image files \(such as 1.png\)"):
        folder_source(flat, screen)
    with pytest.raises(UserError, match="is a folder of the running system"):
        folder_source(tmp_path / "../../../../../../../proc", screen)


def test_a_file_that_changes_while_it_is_read(image_folder, write_image, screen):
    train = folder_source(image_folder, screen).splits["train"]
    write_image(image_folder / train.files[0], 99)
    with pytest.raises(UserError, match="was changed while it was being read"):
        train.pixels(0, 3)
    (image_folder / train.files[1]).unlink()
    with pytest.raises(UserError, match="was changed while it was being read"):
        train.pixels(1, 3)


def test_with_a_cache_files_are_read_once(image_folder, write_image, tmp_path, screen, monkeypatch):
    monkeypatch.setattr(stamps, "GRANULARITY_NS", 10**7)
    (image_folder / "train/cat/text.png").write_text("no image")
    read, read_one = [], image_files.read_image_file
    monkeypatch.setattr(image_files, "read_image_file", lambda path: (read.append(path.name), read_one(path))[1])
    time.sleep(0.05)
    first = folder_source(image_folder, screen, tmp_path / "cache")
    read.clear()
    second = folder_source(image_folder, screen, tmp_path / "cache")
    assert (fingerprint(second), second.skipped) == (fingerprint(first), first.skipped)
    assert read == ["text.png"]
    write_image(image_folder / "test/dog/dog.0.png", 98)
    assert fingerprint(folder_source(image_folder, screen, tmp_path / "cache")) != fingerprint(first)


@pytest.mark.parametrize("place", ["train/cat/cat.0.png", "train/cat"])
def test_files_without_permission_are_left_out(image_folder, screen, deny, place):
    deny(image_folder / place)
    (skipped,) = folder_source(image_folder, screen).skipped
    assert skipped.file == place
    assert skipped.reason == "cannot be read: Permission denied"


@pytest.mark.parametrize("place", ["train", ""])
def test_a_folder_without_permission_is_an_error(image_folder, screen, deny, place):
    deny(image_folder / place)
    with pytest.raises(UserError, match=r"cannot be read|no folder"):
        folder_source(image_folder, screen)


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="a disk in memory")  # noqa: PTH112
def test_a_disk_in_memory_is_no_folder_of_the_system():
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        image_files.refuse_pseudo_folder(Path(folder), "--images")
    with pytest.raises(UserError, match="running system"):
        image_files.refuse_pseudo_folder(Path("/dev"), "--images")


def test_a_fifo_is_no_image_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert not image_files.may_be_image(tmp_path / "pipe")
