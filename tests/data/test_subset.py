"""Subsets and held-out splits by a hash of names."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vision_transfer.data.subset import balanced_subset, hash_names, hold_out, rank_in_class


def named(labels):
    return [f"train/{index}" for index in range(len(labels))]


labelled = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(np.array)


@given(labelled, st.integers(0, 2**64), st.data())
def test_smaller_subsets_lie_in_larger_ones(labels, seed, data):
    large = data.draw(st.integers(1, len(labels)))
    small = data.draw(st.integers(1, large))
    inner, outer = (balanced_subset(labels, named(labels), count, seed) for count in (small, large))
    assert len(inner) == small
    assert len(outer) == large
    assert set(inner) <= set(outer)
    assert (np.diff(outer) > 0).all()


@given(labelled, st.integers(0, 2**64), st.data())
def test_subsets_are_as_balanced_as_can_be(labels, seed, data):
    count = data.draw(st.integers(1, len(labels)))
    chosen = np.bincount(labels[balanced_subset(labels, named(labels), count, seed)], minlength=5)
    available = np.bincount(labels, minlength=5)
    # A class may only have two images fewer than another if it has no more.
    short = chosen < chosen.max() - 1
    assert (chosen[short] == available[short]).all()


def test_a_subset_does_not_depend_on_the_order_of_the_examples():
    labels = np.arange(40) % 4
    names = np.array(named(labels))
    chosen = set(names[balanced_subset(labels, names, 12, seed=3)])
    shuffled = np.random.default_rng(0).permutation(40)
    assert set(names[shuffled][balanced_subset(labels[shuffled], names[shuffled], 12, seed=3)]) == chosen


def test_seeds_choose_differently():
    labels = np.zeros(100, int)
    subsets = {tuple(balanced_subset(labels, named(labels), 10, seed)) for seed in range(20)}
    assert len(subsets) == 20


@pytest.mark.parametrize("count", [0, -1, 5])
def test_impossible_counts_are_refused(count):
    with pytest.raises(ValueError, match="from 1 to 4"):
        balanced_subset(np.zeros(4, int), named(range(4)), count, 0)


@given(labelled, st.floats(0, 0.99))
def test_holding_out_splits_each_class(labels, fraction):
    kept, held = hold_out(labels, named(labels), fraction, "validation")
    assert sorted([*kept, *held]) == list(range(len(labels)))
    for label in np.unique(labels):
        count, out = (labels == label).sum(), (labels[held] == label).sum()
        assert out < count, "no class may vanish from what is kept"
        assert abs(out - fraction * count) <= 1
        assert fraction == 0 or count == 1 or out >= 1


@settings(deadline=None)
@given(labelled, st.floats(0, 0.99), st.integers(0, 2**32), st.data())
def test_groups_stay_on_one_side(labels, fraction, seed, data):
    groups = np.array(data.draw(st.lists(st.integers(0, len(labels)), min_size=len(labels), max_size=len(labels))))
    kept, held = hold_out(labels, named(labels), fraction, "test", seed, groups)
    assert sorted([*kept, *held]) == list(range(len(labels)))
    assert not set(groups[kept]) & set(groups[held])
    for label in np.unique(labels):
        count, out = (labels == label).sum(), (labels[held] == label).sum()
        assert out < count, "no class may vanish from what is kept"


@settings(deadline=None)
@given(labelled, st.floats(0, 0.99), st.integers(0, 2**32))
def test_groups_of_one_are_no_groups(labels, fraction, seed):
    """A class of one pair is added, so that groups are gone through; it must not change the others."""
    plain = hold_out(labels, named(labels), fraction, "test", seed)[1]
    more, other = np.append(labels, [9, 9]), [*named(labels), "a", "b"]
    groups = np.append(np.arange(len(labels)), [len(labels)] * 2)
    grouped = hold_out(more, other, fraction, "test", seed, groups)[1]
    np.testing.assert_array_equal(grouped[grouped < len(labels)], plain)


def test_a_class_of_two_groups_is_divided_between_them():
    labels = np.array([0] * 10 + [1] * 10)
    groups = np.array([*range(10), *[10] * 6, *[11] * 4])
    kept, held = hold_out(labels, named(labels), 0.1, "test", 0, groups)
    assert (labels[held] == 0).sum() == 1
    assert set(groups[held][labels[held] == 1]) == {11}, "the smaller group, since none is small enough"
    assert len(kept) == 15


def test_a_class_that_is_one_group_is_kept_whole():
    labels, groups = np.array([0, 0, 0, 1, 1]), np.array([7, 7, 7, 1, 2])
    assert (labels[hold_out(labels, named(labels), 0.3, "test", 0, groups)[1]] == 1).all()


def test_seeds_hold_out_others():
    labels = np.zeros(100, int)
    held = {tuple(hold_out(labels, named(labels), 0.2, "test", seed)[1]) for seed in range(5)}
    assert len(held) == 5


def test_adding_a_file_moves_few_others():
    labels = np.zeros(1000, int)
    names = named(labels)
    before = {names[index] for index in hold_out(labels, names, 0.1, "validation")[1]}
    more = [*names, "train/new"]
    after = {more[index] for index in hold_out(np.zeros(1001, int), more, 0.1, "validation")[1]}
    assert len(before ^ after) <= 2


def test_hashes_never_change():
    # Splits of published runs hang on these.
    assert hash_names(["train/0", "ä"], "validation", 0).tolist() == [3010359889520584206, 17237379183010207505]


def test_ranks_count_each_class_by_itself():
    labels = np.array([2, 0, 2, 2, 0])
    ranks = rank_in_class(labels, named(labels), "subset", 0)
    assert sorted(ranks[labels == 2]) == [0, 1, 2]
    assert sorted(ranks[labels == 0]) == [0, 1]
