"""The rows that the system is asked for lie in the map and cover what is taken; nothing else changes."""

import mmap

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vision_transfer.data.rows import TakenRows
from vision_transfer.training.device_feed import will_need


class Recorded:
    """Stands for the `mmap` of an array, and keeps what it is asked."""

    def __init__(self, size):
        self.size, self.asked = size, []

    def madvise(self, option, start, length):
        assert option == mmap.MADV_WILLNEED
        assert start % mmap.PAGESIZE == 0
        assert 0 <= start < start + length <= self.size
        self.asked.append((start, start + length))


@pytest.mark.skipif(not hasattr(mmap, "MADV_WILLNEED"), reason="this system cannot be asked")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.integers(0, 39), min_size=1),
    st.sampled_from([128, 4096 + 128, 3 * 4096]),
    st.sampled_from([700, 4096, 9000]),
)
def test_all_rows_that_are_taken_are_asked_for(tmp_path, numbers, offset, row):
    path = tmp_path / "rows.bin"
    path.write_bytes(bytes(offset) + np.arange(40 * row, dtype=np.uint32).astype(np.uint8).tobytes())
    rows = np.memmap(path, np.uint8, mode="r", offset=offset, shape=(40, row))
    before, mapped = np.array(rows[numbers]), rows._mmap
    begin = offset % mmap.ALLOCATIONGRANULARITY
    rows._mmap = recorded = Recorded(begin + 40 * row)
    will_need(rows, np.array(numbers))
    for number in numbers:
        first, last = begin + number * row, begin + (number + 1) * row
        assert any(start <= first and last <= end for start, end in recorded.asked)
    recorded.asked.clear()
    some = TakenRows(rows, np.arange(40)[::-1])
    will_need(some, np.array(numbers))
    assert len(recorded.asked) > 0
    for number in numbers:
        first, last = begin + (39 - number) * row, begin + (40 - number) * row
        assert any(start <= first and last <= end for start, end in recorded.asked)
    rows._mmap = mapped
    np.testing.assert_array_equal(some[numbers], rows[39 - np.array(numbers)])
    will_need(rows, np.array(numbers))
    np.testing.assert_array_equal(rows[numbers], before)


def test_arrays_in_memory_need_nothing():
    will_need(np.zeros((4, 3)), np.array([1, 2]))
