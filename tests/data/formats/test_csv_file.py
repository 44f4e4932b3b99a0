"""Tables of images: what is read, and what is rejected with line and column."""

import numpy as np
import pytest

from vision_transfer.config.schema import DatasetConfig
from vision_transfer.data.formats.csv_file import csv_source
from vision_transfer.data.load import load_dataset
from vision_transfer.data.source import fingerprint
from vision_transfer.errors import UserError


@pytest.fixture
def table(tmp_path, write_image):
    """Writes a table beside eight images `0.png` to `7.png`; lines are separated by newlines."""
    for number in range(8):
        write_image(tmp_path / f"{number}.png", number)

    def write(*lines, name="pets.csv", encoding="utf-8"):
        file = tmp_path / name
        file.write_text("\n".join(lines) + "\n", encoding=encoding)
        return file

    return write


def rows_of(*labels):
    return [f"{number}.png,{label}" for number, label in enumerate(labels)]


def test_a_table_without_splits(table, screen):
    source = csv_source(table("path,label", *rows_of("dog", "cat", "cat", "dog")), screen)
    assert source.name == "pets"
    assert source.classes == ("cat", "dog")
    assert source.splits["train"].files == ("0.png", "1.png", "2.png", "3.png")
    assert source.splits["train"].labels.tolist() == [1, 0, 0, 1]
    assert list(source.splits) == ["train"]


def test_a_table_with_splits(table, write_image, screen):
    split = ["train", "train", "val", "Validation", "test", "test"]
    lines = [f"{row},{name}" for row, name in zip(rows_of(*"abbaab"), split, strict=True)]
    source = csv_source(table("path,label,split", *lines), screen)
    assert {name: part.files for name, part in source.splits.items()} == {
        "train": ("0.png", "1.png"),
        "validation": ("2.png", "3.png"),
        "test": ("4.png", "5.png"),
    }
    expected = write_image(table("path").parent / "9.png", 4)
    np.testing.assert_array_equal(source.splits["test"].pixels(0, 3), expected)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_other_columns_separators_and_marks(table, screen, separator):
    plain = csv_source(table("path,label", *rows_of("a", "b")), screen)
    lines = [
        separator.join(["Label", "id", " Path "]),
        separator.join(["a", "7", '"0.png"']),
        "",
        f"b{separator}{separator}1.png",
    ]
    other = csv_source(table(*lines, encoding="utf-8-sig", name="pets.CSV"), screen)
    assert fingerprint(other) == fingerprint(plain)


def test_paths_count_from_the_table(table, write_image, screen, tmp_path):
    write_image(tmp_path / "in a/folder é.png", 50)
    source = csv_source(table("path,label", "in a/folder é.png,x", f"{tmp_path}/1.png,y"), screen)
    assert source.splits["train"].files == ("in a/folder é.png", f"{tmp_path}/1.png")


def test_paths_of_windows(table, write_image, screen, tmp_path):
    write_image(tmp_path / "img/a/1.png", 51)
    write_image(tmp_path / "img\\b.png", 52)
    lines = ("\ufeffpath;label", r"img\a\1.png;a", r"img\b.png;b", r"gone\c.png;b")
    source = csv_source(table(*lines), screen)
    assert source.splits["train"].files == ("img/a/1.png", "img\\b.png"), "a name with a backslash keeps it"
    assert [skipped.file for skipped in source.skipped] == ["gone/c.png"]


def test_labels_and_splits_are_compared_as_they_look(table, screen):
    rows = (
        "path,label,split",
        "0.png,caf\u00e9,Train",
        "1.png, cafe\u0301 ,TESTING",
        "2.png,b,training",
        "3.png,b,test",
    )
    source = csv_source(table(*rows), screen)
    assert source.classes == ("b", "caf\u00e9")
    assert {split: examples.files for split, examples in source.splits.items()} == {
        "train": ("0.png", "2.png"),
        "test": ("1.png", "3.png"),
    }


def test_files_that_are_missing_are_left_out_with_their_line(table, screen):
    source = csv_source(table("path,label", *rows_of("a", "b"), "gone.png,a"), screen)
    (skipped,) = source.skipped
    assert skipped.file == "gone.png"
    assert skipped.reason == "line 4: cannot be read: No such file or directory"


def test_a_table_is_found_by_its_name(table, screen, tmp_path):
    file = table("path,label", *rows_of(*"aaaabbbb"))
    for name in ("auto", "folder", "csv"):
        request = DatasetConfig(name=name, root=str(file), image_size=8)
        dataset = load_dataset(request, cache_dir=tmp_path / "cache", screen=screen)
        assert [len(getattr(dataset, split)) for split in ("train", "validation", "test")] == [4, 2, 2]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([""], r"line 1: has no column path \(it has nothing\)"),
        (["path,class", "0.png,a"], r"line 1: has no column label \(it has path, class\)"),
        (["path,label,path"], "line 1: has the column path twice"),
        (["path,label"], "column label: lists no images"),
        (["path,label", "0.png,a", "1.png,a"], "column label: has only the class a"),
        (["path,label", "0.png,a", ",b"], "line 3, column path: is empty"),
        (["path,label", "0.png,a", "1.png"], "line 3, column label: is empty"),
        (["path,label", "0.png,a", "1.png,b", "0.png,b"], "line 4, column path: 0.png is already in line 2"),
        (["path,label", "0.png,a", "1.png,b", "./0.png,b"], r"\./0.png is already in line 2 as a, here as b"),
        (["path,label", "0.png,Cat", "1.png,cat"], "column label: the classes 'Cat' and 'cat' differ only in case"),
        (["path,label,split", "0.png,a,train", "1.png,b,tset"], "line 3, column split: is 'tset'; did you mean test"),
        (["path,label,split", "0.png,a,train", "1.png,b,"], "line 3, column split: is empty"),
        (
            ["path,label,split", "0.png,a,train", "1.png,b,train", "2.png,a,test"],
            "no image of the class b in test",
        ),
        (["path,label,split", "0.png,a,test", "1.png,b,test"], "column split: no image is in train"),
        (["path,label", '0.png,"a'], "cannot be read as CSV"),
        (["path,label", "0.png,a\0b"], "column label: contains a zero byte|cannot be read as CSV"),
        (["path,label", "0.png,a", f"1.png,{'x' * 200_000}"], "line 3: cannot be read as CSV"),
    ],
)
def test_what_is_refused(table, screen, lines, message):
    file = table(*lines)
    with pytest.raises(UserError, match=message) as raised:
        csv_source(file, screen)
    assert str(raised.value).startswith(f"--config.dataset.root: {file}")


def test_what_is_no_text(table, screen):
    file = table("path,label", "0.png,é", encoding="latin-1")
    with pytest.raises(UserError, match="line 2: is not UTF-8 text"):
        csv_source(file, screen)
    file.unlink()
    with pytest.raises(UserError, match="cannot be read: No such file"):
        csv_source(file, screen)
    file.mkdir()
    with pytest.raises(UserError, match="not a regular file"):
        csv_source(file, screen)
