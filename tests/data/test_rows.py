"""Stored rows are those of the array that was saved, however they are chosen, and are asked for ahead."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vision_transfer.data.rows import OpenFile, StoredRows, TakenRows, will_need

COUNT = 40


@pytest.fixture(scope="module", params=[(128, 700), (4096, 4096), (0, 9000)], ids=str)
def stored(request, tmp_path_factory):
    """Forty rows behind some other bytes of a file, and the same as an array."""
    start, row = request.param
    values = np.random.default_rng(0).integers(0, 256, (COUNT, row // 2, 2), dtype=np.uint8)
    path = tmp_path_factory.mktemp("rows") / "rows.bin"
    path.write_bytes(bytes(start) + values.tobytes())
    return StoredRows(path, start, values.shape, values.dtype), values


@given(st.lists(st.integers(-COUNT, COUNT - 1)))
def test_rows_by_numbers(stored, numbers):
    rows, values = stored
    chosen = np.array(numbers, int)
    np.testing.assert_array_equal(rows[chosen], values[chosen])
    taken = TakenRows(rows, chosen)
    assert taken.shape == values[chosen].shape
    np.testing.assert_array_equal(taken, values[chosen])
    np.testing.assert_array_equal(taken[np.arange(len(numbers))[::-1]], values[chosen][::-1])


@pytest.mark.parametrize(
    "choice", [slice(None), slice(3, 9), slice(-2, None), slice(30, 2, -7), 5, -1, [[1, 2], [7, 0]]]
)
def test_rows_as_numpy_chooses_them(stored, choice):
    rows, values = stored
    np.testing.assert_array_equal(rows[choice], values[choice])
    np.testing.assert_array_equal(TakenRows(values, np.arange(COUNT))[choice], values[choice])


def test_rows_that_are_not_there(stored):
    for choice in (COUNT, [0, -COUNT - 1]):
        with pytest.raises(IndexError):
            stored[0][choice]


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system cannot be asked")
@given(st.lists(st.integers(0, COUNT - 1), min_size=1))
def test_all_rows_that_are_taken_are_asked_for_and_nothing_else(stored, numbers):
    rows, _ = stored
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "posix_fadvise", lambda descriptor, *given: asked.append(given))
        will_need(TakenRows(rows, np.arange(COUNT)[::-1]), np.array(numbers))
    found = [
        (begin - rows.start + place) // rows.row_bytes
        for begin, length, advice in asked
        if advice == os.POSIX_FADV_WILLNEED
        for place in range(0, length, rows.row_bytes)
    ]
    assert found == sorted(COUNT - 1 - number for number in numbers)


def test_a_file_that_is_kept_open_gives_its_rows_after_it_is_removed(tmp_path):
    path = tmp_path / "rows.bin"
    path.write_bytes(bytes(range(12)))
    rows = StoredRows(path, 0, (4, 3), np.dtype(np.uint8), OpenFile(path))
    path.unlink()
    np.testing.assert_array_equal(rows, np.arange(12).reshape(4, 3))


def test_arrays_in_memory_need_nothing():
    will_need(np.zeros((4, 3)), np.array([1, 2]))
