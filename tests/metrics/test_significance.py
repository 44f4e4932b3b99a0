"""McNemar's exact test against hand computation and its definition."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vision_transfer.metrics.significance import mcnemar_exact, paired


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(0, 0, 1.0), (1, 9, 2 * (1 + 10) / 1024), (5, 5, 1.0), (0, 6, 2 / 64), (7, 7, 1.0)],
)
def test_by_hand(first, second, expected):
    assert mcnemar_exact(first, second) == pytest.approx(expected)


@given(st.integers(0, 60), st.integers(0, 60))
def test_twice_the_smaller_tail_of_fair_coins(first, second):
    flips = first + second
    tail = sum(math.comb(flips, heads) for heads in range(min(first, second) + 1)) / 2**flips
    assert mcnemar_exact(first, second) == pytest.approx(min(1, 2 * tail))
    assert mcnemar_exact(first, second) == mcnemar_exact(second, first)


def test_counts():
    first, second = np.array([1, 1, 0, 0, 1], bool), np.array([1, 0, 1, 0, 0], bool)
    found = paired(first, second)
    assert (found.both, found.first_only, found.second_only, found.neither) == (1, 2, 1, 1)
    assert found.p_value == 1
