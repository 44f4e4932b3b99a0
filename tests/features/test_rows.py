"""Mapped rows: equal to those that were saved, and not in memory after they are taken."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vision_transfer.features.rows import map_rows

STATUS = Path("/proc/self/status")


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 6), max_size=20), st.sampled_from(["<f4", "<u2"]))
def test_rows_are_those_that_were_saved(tmp_path_factory, numbers, dtype):
    values = np.arange(7 * 3 * 2).reshape(7, 3, 2).astype(dtype)
    file = tmp_path_factory.mktemp("rows") / "rows.npy"
    np.save(file, values)
    rows = map_rows(file)
    assert (len(rows), rows.array.dtype) == (7, np.dtype(dtype))
    np.testing.assert_array_equal(rows[np.array(numbers, int)], values[np.array(numbers, int)])


@pytest.mark.skipif(not STATUS.exists(), reason="needs /proc, which tells what a process has mapped")
def test_what_was_taken_does_not_stay_in_memory(tmp_path):
    megabytes = 64
    np.save(tmp_path / "rows.npy", np.ones((megabytes, 1 << 18), np.float32))
    rows = map_rows(tmp_path / "rows.npy")
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
        map_rows(tmp_path / "rows.npy")


def test_what_is_cut_short_or_no_rows_of_numbers(tmp_path):
    file = tmp_path / "rows.npy"
    np.save(file, np.ones((4, 5), np.float32))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError):
        map_rows(file)
    for array, held in (
        (np.array([None, 1], object), "Python objects"),
        (np.asfortranarray(np.ones((4, 5))), "columns"),
    ):
        np.save(file, array)
        with pytest.raises(ValueError, match=held):
            map_rows(file)
