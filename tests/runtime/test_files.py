"""Files and folders are either complete or absent."""

import hashlib
import json

import pytest
from filelock import FileLock

from vision_transfer.runtime.files import (
    TEMPORARY_MARK,
    file_sha256,
    held,
    new_folder,
    remove_leftovers,
    replaced_file,
    write_json,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_when_it_is_complete(tmp_path):
    path = tmp_path / "deep" / "file"
    with replaced_file(path) as temporary:
        assert temporary.parent == path.parent
        temporary.write_text("first")
        assert not path.exists()
    with replaced_file(path) as temporary:
        temporary.write_text("second")
        assert path.read_text() == "first"
    assert path.read_text() == "second"
    assert names(path.parent) == ["file"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("before")

    def fail():
        with replaced_file(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "before"
    assert names(tmp_path) == ["file"]


def test_a_folder_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "folder"
    with new_folder(path) as temporary:
        (temporary / "inside").mkdir()
        (temporary / "inside" / "file").write_text("text")
        assert not path.exists()
    assert (path / "inside" / "file").read_text() == "text"
    assert names(tmp_path) == ["folder"]


def test_a_folder_that_fails_does_not_appear(tmp_path):
    def fail():
        with new_folder(tmp_path / "folder") as temporary:
            (temporary / "file").write_text("half")
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert names(tmp_path) == []


def test_only_leftovers_are_removed(tmp_path):
    (tmp_path / f"file{TEMPORARY_MARK}1").write_text("half")
    (tmp_path / f"folder{TEMPORARY_MARK}2").mkdir()
    (tmp_path / f"folder{TEMPORARY_MARK}2" / "file").write_text("half")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / f"deeper{TEMPORARY_MARK}3").write_text("of another folder")
    (tmp_path / "kept.txt").write_text("")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["kept", "kept.txt"]
    assert names(tmp_path / "kept") == [f"deeper{TEMPORARY_MARK}3"]


def test_json_is_indented_and_sorted(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"b": [1.5, None], "a": "ä"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": "ä", "b": [1.5, None]}
    assert path.read_text(encoding="utf-8").startswith('{\n  "a": "ä",\n')
    assert path.read_text(encoding="utf-8").endswith("}\n")


def test_json_that_cannot_be_written_changes_nothing(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, 1)
    with pytest.raises(TypeError):
        write_json(path, object())
    assert json.loads(path.read_text()) == 1
    assert names(tmp_path) == ["file.json"]


@pytest.mark.parametrize("size", [0, 1, (1 << 20) + 3])
def test_digests(tmp_path, size):
    content = bytes(number % 251 for number in range(size))
    (tmp_path / "file").write_bytes(content)
    assert file_sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_a_lock_is_held_by_one_at_a_time_and_released_after_an_error(tmp_path):
    first, second = (FileLock(tmp_path / "lock", is_singleton=False) for _ in range(2))
    with pytest.raises(KeyError), held(first) as mine, held(second) as other:
        assert (mine, other) == (True, False)
        raise KeyError
    with held(second) as mine:
        assert mine
