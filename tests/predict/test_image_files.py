"""The files that `--images` names."""

import os

import pytest

from vision_transfer.data.formats.image_files import display
from vision_transfer.errors import UserError
from vision_transfer.predict.image_files import find_images


@pytest.fixture
def folder(tmp_path):
    for name in ("b.jpg", "a.PNG", "note.txt", ".hidden.jpg", "deep/c.jpeg", "deep/er/d.jpg", ".dot/e.jpg", "[x].jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def found(images, folder):
    return [os.path.relpath(path, folder) for path in find_images(str(images))]


def test_a_folder_gives_the_images_below_it(folder):
    assert found(folder, folder) == ["[x].jpg", "a.PNG", "b.jpg", "deep/c.jpeg", "deep/er/d.jpg"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.jpg", ["[x].jpg", "b.jpg"]),
        ("**/*.jpg", ["[x].jpg", "b.jpg", "deep/er/d.jpg"]),
        ("**", ["[x].jpg", "a.PNG", "b.jpg", "deep/c.jpeg", "deep/er/d.jpg", "note.txt"]),
        ("de*/[cd].*", ["deep/c.jpeg"]),
        ("[x].jpg", ["[x].jpg"]),
        (".dot/*.jpg", [".dot/e.jpg"]),
        ("note.txt", ["note.txt"]),
    ],
)
def test_patterns_and_files(folder, pattern, names):
    assert found(folder / pattern, folder) == names


def test_a_relative_pattern_gives_relative_names(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert find_images("deep/*.jpeg") == ["deep/c.jpeg"]


def test_links_in_a_ring_are_followed_once(folder):
    (folder / "deep" / "back").symlink_to(folder, target_is_directory=True)
    assert found(folder / "**/*.jpeg", folder) == ["deep/c.jpeg"]
    assert "deep/c.jpeg" in found(folder, folder)


@pytest.mark.parametrize("name", ["nothing.jpg", "*.tiff", "empty"])
def test_no_match_is_an_error(folder, name):
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match="--images="):
        find_images(str(folder / name))


def test_a_name_is_one_line_of_text():
    assert display("a\nb\rc é") == "a\\nb\\rc é"
    assert display(os.fsdecode(b"a\xff.jpg")) == "a\\xff.jpg"
