"""Images by file, folder and pattern, and of a data set."""

import numpy as np
import pytest
from PIL import Image

from vision_transfer.data.dataset import Split
from vision_transfer.errors import UserError
from vision_transfer.tasks.explain.images import NamedImage, first_images, read_images


@pytest.fixture
def folder(tmp_path):
    for name, size in (("a/one.png", (5, 4)), ("b/one.jpg", (6, 3)), ("b/two é.PNG", (2, 2))):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", size, (10, 20, 30)).save(path)
    (tmp_path / "b" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no image")
    (tmp_path / "b" / "notes.txt").write_text("not an image")
    return tmp_path


def test_a_folder_gives_all_its_images_and_names_the_unreadable_files(folder):
    found, unreadable = read_images(str(folder), 3)
    assert [image.name for image in found] == ["one", "one-2", "two é"]
    assert found[0].pixels.shape == (4, 5, 3)
    assert [path.name for path in unreadable] == ["broken.jpg"]
    assert all(unreadable.values())


def test_a_file_and_a_pattern(folder):
    assert [each.name for each in read_images(str(folder / "b" / "two é.PNG"), 1)[0]] == ["two é"]
    assert [each.name for each in read_images(str(folder / "**" / "one.*"), 3)[0]] == ["one", "one-2"]
    assert read_images(str(folder / "a" / "*"), 1)[0][0].pixels.shape == (4, 5, 1)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("missing.png", "there is no such file or folder"),
        ("*.webp", "no file matches it"),
        ("b/broken.jpg", "no image can be read.*broken.jpg"),
        ("b/notes.txt", "no image can be read.*not an image"),
        ("empty", "no image is below this folder"),
    ],
)
def test_messages(folder, images, message):
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        read_images(str(folder / images), 3)


def test_images_of_one_name_have_figures_of_their_own():
    files = ("cat/patient1/1.png", "cat/patient2/1.png", "dog/1.png")
    split = Split(np.zeros((3, 4, 4, 3), np.uint8), np.int32([0, 0, 1]), files, np.zeros((3, 16), np.uint8))
    names = [image.name for image in first_images(split, ("cat", "dog"))]
    assert sorted(names) == ["cat-1.png", "cat-1.png-2", "dog-1.png"]


def test_a_data_set_s_images_take_turns_by_class():
    labels = np.array([0, 0, 0, 1, 2, 1], np.int32)
    images = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1)
    split = Split(images, labels, tuple(f"test/{number}" for number in range(6)), np.zeros((6, 16), np.uint8))
    found = first_images(split, ("T-shirt/top", "b", "c"), most=5)
    assert [int(image.pixels[0, 0, 0]) for image in found] == [0, 3, 4, 1, 5]
    assert found[0].name == "T-shirt_top-0"


def test_small_copies():
    image = NamedImage("p", np.random.default_rng(0).integers(0, 256, (40, 80, 3), dtype=np.uint8))
    assert image.at_most(20).shape == (10, 20, 3)
    assert image.at_most(100).shape == (40, 80, 3)
    expected = image.pixels[:, 20:60].reshape(8, 5, 8, 5, 3).mean((1, 3))
    np.testing.assert_allclose(image.small_square(8), expected, atol=1)
