"""Kept digests: a file is read once, and every change to it is noticed."""

import os
import sys
import time
from array import array
from hashlib import blake2b
from random import Random

import pytest

from vision_transfer.runtime import file_stamps, stamps
from vision_transfer.runtime.stamps import known_digests

# Linux sets the times of files by a clock that ticks 100 to 1,000 times a second.
TICK_SECONDS = 0.01


def digest(content):
    return blake2b(content, digest_size=16).digest()


class Reader:
    """Digests files, and counts those that were read."""

    def __init__(self, folder, count=3):
        self.paths = [folder / f"{number}.bin" for number in range(count)]
        for number, path in enumerate(self.paths):
            path.write_bytes(bytes([number] * 100))
        self.kept_in, self.read = folder / "stamps" / "files", []

    def __call__(self):
        """The paths that were read for the digests, which are checked."""
        self.read = []
        digests, others = known_digests(self.kept_in, [("", list(map(str, self.paths)))], self._digests, 16)
        found = {place: row.tobytes() for place, row in enumerate(digests) if place not in others} | others
        assert found == {n: digest(path.read_bytes()) if path.is_file() else None for n, path in enumerate(self.paths)}
        return self.read

    def _digests(self, places):
        for place in places:
            path = self.paths[place]
            self.read.append(path)
            yield digest(path.read_bytes()) if path.is_file() else None


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """Files that have been read once, long enough after they were written."""
    monkeypatch.setattr(stamps, "GRANULARITY_NS", int(2 * TICK_SECONDS * 1e9))
    reader = Reader(tmp_path)
    time.sleep(4 * TICK_SECONDS)
    assert reader() == reader.paths
    return reader


def test_a_file_is_read_once(reader):
    assert reader() == []


def test_what_is_no_file_is_asked_for_each_time(reader):
    reader.paths[1].unlink()
    assert reader() == [reader.paths[1]]
    assert reader() == [reader.paths[1]]


def test_a_change_is_noticed_whatever_time_it_claims(reader):
    path = reader.paths[2]
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"other")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    assert reader() == [path]


def test_a_file_in_the_place_of_another_is_read(reader):
    reader.paths[0].rename(reader.paths[1])
    reader.paths[2].rename(reader.paths[0])
    reader.paths[2].write_bytes(b"new")
    assert reader.paths[2] in reader()


def test_a_file_that_was_only_just_written_is_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(stamps, "GRANULARITY_NS", 3600 * 10**9)
    reader = Reader(tmp_path)
    assert reader() == reader() == reader.paths
    assert not reader.kept_in.exists()


def test_no_change_passes_however_fast_it_follows(reader):
    """Rewritten in place, with the same size, again and again within a tick of the clock."""
    with reader.paths[0].open("r+b", buffering=0) as file:
        for number in range(300):
            file.seek(0)
            file.write(number.to_bytes(2))
            assert reader() == [reader.paths[0]]


def test_files_that_are_added_are_read_alone(reader):
    new = reader.kept_in.parent.parent / "new.bin"
    new.write_bytes(b"new")
    reader.paths.insert(1, new)
    time.sleep(4 * TICK_SECONDS)
    assert reader() == [new]
    assert reader() == []


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: b"\1" + content[1:], lambda _: b""])
def test_damaged_stamps_are_none(reader, damage):
    reader.kept_in.write_bytes(damage(reader.kept_in.read_bytes()))
    assert reader() == reader.paths
    assert reader() == []


def test_forgotten_files_are_read_again(reader, tmp_path):
    stamps.forget(tmp_path)
    assert reader() == reader.paths


def test_without_a_place_nothing_is_kept(reader):
    digests, others = known_digests(None, [("", reader.paths)], lambda places: [b"x" * 16] * len(places), 16)
    assert digests.tobytes() == b"x" * 48
    assert others == {}


def test_a_clock_far_in_the_future_costs_no_command(tmp_path, monkeypatch):
    file = tmp_path / "image.png"
    file.write_bytes(b"content")
    far = 2**63 + 5
    monkeypatch.setattr(file_stamps, "_values", lambda status: (status.st_ino, status.st_size, far, status.st_ctime_ns))
    stamps = file_stamps.stamps_of([str(file)])
    assert stamps[2] == 2**63 - 1
    # and is never taken for one that has not changed for a while
    read = []

    def note(numbers):
        read.extend(numbers)
        return [bytes(16) for _ in numbers]

    for _ in range(2):
        known_digests(tmp_path / "stamps", [("", [str(file)])], note, 16)
    assert read == [0, 0]


def test_processes_give_the_same_stamps(tmp_path, monkeypatch):
    """As `os.stat` of each path, whatever the sizes of folders; with names that no process can be given."""
    random, listed, expected = Random(0), [("", [str(tmp_path / "a\0b"), str(tmp_path / "none")])], [0] * 8
    for number in range(20):
        folder = tmp_path / f"folder {number}"
        folder.mkdir()
        names = [f"{name}" + random.choice(["", "ü", "\udcff", "\n"]) for name in range(random.randrange(9))]
        for name in names:
            (folder / name).write_bytes(bytes(random.randrange(99)))
            status = (folder / name).stat()
            expected += [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        listed.append((f"{folder}/", names))
    monkeypatch.chdir(tmp_path)
    listed.append(("folder 0/", ["none"]))
    listed.append(("nowhere/", ["none"]))
    expected += [0] * 8
    for many in (1000, 10, 3, 1):
        monkeypatch.setattr(file_stamps, "_MANY", many)
        for processes in (1, 2, 3):
            assert array("q", file_stamps.stamps_of_files(iter(listed), processes)).tolist() == expected
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert array("q", file_stamps.stamps_of_files(listed, 2)).tolist() == expected
    assert file_stamps.stamps_of_files([], 2) == b""
