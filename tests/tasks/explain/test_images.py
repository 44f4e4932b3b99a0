"""Pictures by file, folder and pattern, and of a data set."""

import numpy as np
import pytest
from PIL import Image

from vision_transfer.data.dataset import Split
from vision_transfer.errors import UserError
from vision_transfer.tasks.explain.images import Picture, pictures_of_classes, read_pictures


@pytest.fixture
def folder(tmp_path):
    for name, size in (("a/one.png", (5, 4)), ("b/one.jpg", (6, 3)), ("b/two é.PNG", (2, 2))):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", size, (10, 20, 30)).save(path)
    (tmp_path / "b" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    (tmp_path / "b" / "notes.txt").write_text("not a picture")
    return tmp_path


def test_a_folder_gives_all_its_pictures_and_names_those_that_are_none(folder):
    pictures, unreadable = read_pictures(str(folder), 3)
    assert [picture.name for picture in pictures] == ["one", "one-2", "two é"]
    assert pictures[0].pixels.shape == (4, 5, 3)
    assert [file.path.name for file in unreadable] == ["broken.jpg"]
    assert unreadable[0].reason


def test_a_file_and_a_pattern(folder):
    assert [each.name for each in read_pictures(str(folder / "b" / "two é.PNG"), 1)[0]] == ["two é"]
    assert [each.name for each in read_pictures(str(folder / "**" / "one.*"), 3)[0]] == ["one", "one-2"]
    assert read_pictures(str(folder / "a" / "*"), 1)[0][0].pixels.shape == (4, 5, 1)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("missing.png", "there is no such file or folder"),
        ("*.webp", "no file fits the pattern"),
        ("b/broken.jpg", "no picture can be read.*broken.jpg"),
        ("b/notes.txt", "no picture can be read.*not an image"),
        ("empty", "has no image files"),
    ],
)
def test_what_is_wrong_is_said(folder, images, message):
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        read_pictures(str(folder / images), 3)


def test_a_data_set_s_pictures_come_in_turns_of_its_classes():
    labels = np.array([0, 0, 0, 1, 2, 1], np.int32)
    images = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1)
    split = Split(images, labels, tuple(f"test/{number}" for number in range(6)), np.zeros((6, 16), np.uint8))
    found = pictures_of_classes(split, ("T-shirt/top", "b", "c"), most=5)
    assert [int(picture.pixels[0, 0, 0]) for picture in found] == [0, 3, 4, 1, 5]
    assert found[0].name == "T-shirt_top-0"


def test_small_copies():
    picture = Picture("p", np.random.default_rng(0).integers(0, 256, (40, 80, 3), dtype=np.uint8))
    assert picture.at_most(20).shape == (10, 20, 3)
    assert picture.at_most(100).shape == (40, 80, 3)
    expected = picture.pixels[:, 20:60].reshape(8, 5, 8, 5, 3).mean((1, 3))
    np.testing.assert_allclose(picture.small_square(8), expected, atol=1)
