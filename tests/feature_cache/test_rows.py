"""Stored rows: equal to those that were saved, without memory or descriptors that stay."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vision_transfer.data.rows import open_rows
from vision_transfer.errors import UserError
from vision_transfer.feature_cache.rows import FeatureRows

STATUS = Path("/proc/self/status")


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 6), max_size=20), st.sampled_from(["<f4", "<u2"]))
def test_rows_are_those_that_were_saved(tmp_path_factory, numbers, dtype):
    values = np.arange(7 * 3 * 2).reshape(7, 3, 2).astype(dtype)
    file = tmp_path_factory.mktemp("rows") / "rows.npy"
    np.save(file, values)
    assert (len(open_rows(file)), open_rows(file).dtype) == (7, np.dtype(dtype))
    np.testing.assert_array_equal(all_of(file)[np.array(numbers, int)], values[np.array(numbers, int)])


def all_of(*files):
    """The rows of some files, one after the other."""
    shards = tuple(map(open_rows, files))
    places = [(shard, row) for shard, rows in enumerate(shards) for row in range(len(rows))]
    return FeatureRows(shards, np.array(places, np.int64))


def test_rows_of_many_files_need_no_descriptor_each(tmp_path):
    files = [tmp_path / f"{number}.npy" for number in range(60)]
    for number, file in enumerate(files):
        np.save(file, np.full((2, 3), number, np.float32))
    before = len(list(Path("/proc/self/fd").iterdir())) if STATUS.exists() else 0
    rows = all_of(*files)
    np.testing.assert_array_equal(rows[np.arange(120)[::-1]][:, 0], np.repeat(np.arange(60), 2)[::-1])
    assert not STATUS.exists() or len(list(Path("/proc/self/fd").iterdir())) <= before


def test_a_file_that_is_shortened_or_removed_meanwhile_is_a_message(tmp_path):
    file = tmp_path / "rows.npy"
    np.save(file, np.ones((4, 5), np.float32))
    rows = all_of(file)
    os.truncate(file, file.stat().st_size - 8)
    assert rows[np.array([0])].shape == (1, 5)
    with pytest.raises(UserError, match="can no longer be read"):
        rows[np.array([3])]
    file.unlink()
    with pytest.raises(UserError, match="No such file"):
        rows[np.array([0])]


@pytest.mark.skipif(not STATUS.exists(), reason="needs /proc, which tells what a process has mapped")
def test_what_was_taken_does_not_stay_in_memory(tmp_path):
    megabytes = 64
    np.save(tmp_path / "rows.npy", np.ones((megabytes, 1 << 18), np.float32))
    rows = all_of(tmp_path / "rows.npy")
    before = mapped_kilobytes()
    for first in range(0, megabytes, 8):
        rows[np.arange(first, first + 8)]
    assert mapped_kilobytes() - before < 4 * 1024


def mapped_kilobytes():
    """Pages of files that are in this process's memory."""
    return int(STATUS.read_text().split("RssFile:")[1].split()[0])


@pytest.mark.parametrize(
    "content",
    [b"", b"no array", np.ones(3).tobytes()],
)
def test_what_is_no_array(tmp_path, content):
    (tmp_path / "rows.npy").write_bytes(content)
    with pytest.raises(ValueError):
        open_rows(tmp_path / "rows.npy")


def test_what_is_cut_short_or_no_rows_of_numbers(tmp_path):
    file = tmp_path / "rows.npy"
    np.save(file, np.ones((4, 5), np.float32))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError):
        open_rows(file)
    for array, held in (
        (np.array([None, 1], object), "Python objects"),
        (np.asfortranarray(np.ones((4, 5))), "columns"),
        (np.float32(1), "a single number"),
    ):
        np.save(file, array)
        with pytest.raises(ValueError, match=held):
            open_rows(file)
