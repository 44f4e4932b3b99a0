"""`cats_vs_dogs_small` out of Kaggle's flat folder."""

import os
import shutil

import pytest

from vision_transfer.data.make_subset import main, make_subset
from vision_transfer.errors import UserError


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Thousands of tiny files synced to the disk one by one take a quarter of a minute."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def kaggle(tmp_path_factory):
    """Files named like Kaggle's, each holding its own name."""
    folder = tmp_path_factory.mktemp("kaggle") / "train"
    folder.mkdir()
    for name in ("cat", "dog"):
        for number in range(2600):
            (folder / f"{name}.{number}.jpg").write_text(f"{name}.{number}")
    return folder


@pytest.mark.parametrize(("arguments", "test_end"), [([], 2000), (["--edition=2"], 2500)])
def test_the_ranges(kaggle, tmp_path, arguments, test_end, capsys):
    destination = tmp_path / "cats_vs_dogs_small"
    assert main([str(kaggle), str(destination), *arguments]) == 0
    assert str(destination) in capsys.readouterr().out
    files = {path.relative_to(destination).as_posix(): path.read_text() for path in destination.rglob("*.jpg")}
    expected = {
        f"{split}/{name}/{name}.{number}.jpg": f"{name}.{number}"
        for split, numbers in (
            ("train", range(1000)),
            ("validation", range(1000, 1500)),
            ("test", range(1500, test_end)),
        )
        for name in ("cat", "dog")
        for number in numbers
    }
    assert files == expected


def test_missing_files_are_named(kaggle, tmp_path, capsys):
    partly = tmp_path / "partly"
    partly.mkdir()
    for number in range(5):
        shutil.copy(kaggle / f"cat.{number}.jpg", partly)
    assert main([str(partly), str(tmp_path / "made")]) == 2
    error = capsys.readouterr().err
    assert "lacks 3,995 of the 4,000 files needed, such as cat.5.jpg, cat.6.jpg" in error
    assert not (tmp_path / "made").exists()


def test_no_source(tmp_path):
    with pytest.raises(UserError, match="no folder"):
        make_subset(tmp_path / "nowhere", tmp_path / "made")


def test_a_destination_that_exists_is_left_alone(kaggle, tmp_path):
    (tmp_path / "made").mkdir()
    (tmp_path / "made/mine.txt").write_text("precious")
    with pytest.raises(UserError, match="already exists"):
        make_subset(kaggle, tmp_path / "made")
    assert (tmp_path / "made/mine.txt").read_text() == "precious"


@pytest.mark.parametrize("test_range", [(1400, 2000), (1500, 1500), (2000, 1500)])
def test_bad_ranges(kaggle, tmp_path, test_range):
    with pytest.raises(UserError, match="test range"):
        make_subset(kaggle, tmp_path / "made", test_range)


def test_a_full_disk_leaves_nothing(kaggle, tmp_path, monkeypatch):
    copies = []

    def fail_later(source, target):
        copies.append(target)
        if len(copies) > 10:
            raise OSError(28, "No space left on device")
        target.write_bytes(source.read_bytes())

    monkeypatch.setattr(shutil, "copyfile", fail_later)
    with pytest.raises(UserError, match="No space left"):
        make_subset(kaggle, tmp_path / "made")
    assert list(tmp_path.iterdir()) == []
