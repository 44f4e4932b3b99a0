"""The order of the data: every example once per pass, whatever window is requested."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vision_transfer.config import StageConfig
from vision_transfer.data.batches import (
    balanced_order,
    batches_per_pass,
    permutation,
    steps_of_epoch,
    training_batches,
)

sizes = st.integers(1, 50)
seeds = st.integers(0, 2**64 - 1)


@given(seeds, st.integers(0, 10**6), sizes)
def test_a_pass_is_a_permutation(seed, pass_index, examples):
    assert sorted(permutation(seed, pass_index, examples)) == list(range(examples))


@given(sizes, st.integers(1, 20), st.integers(1, 30))
def test_an_epoch_is_one_pass_or_the_least_number_of_steps(examples, batch_size, least):
    steps = steps_of_epoch(StageConfig(least_steps=least), examples, batch_size)
    assert steps >= least and steps * batch_size >= examples
    assert steps == least or (steps - 1) * batch_size < examples
    assert steps_of_epoch(StageConfig(steps_per_epoch=7, least_steps=least), examples, batch_size) == 7


def test_the_order_never_changes():
    # Philox's raw bits are fixed by NumPy's promise; if this fails, old runs no longer resume as they began.
    np.testing.assert_array_equal(permutation(0, 0, 10), [2, 3, 5, 7, 0, 6, 1, 4, 9, 8])
    np.testing.assert_array_equal(permutation(7, 3, 10), [6, 9, 5, 0, 8, 4, 7, 2, 3, 1])


def test_places_are_uniform():
    # The place of example 0 over 4,000 passes; chi-squared with 9 degrees of freedom is over 27.9 once in 1,000 times.
    places = [int(np.flatnonzero(permutation(1, pass_index, 10) == 0)[0]) for pass_index in range(4000)]
    counts = np.bincount(places, minlength=10)
    assert ((counts - 400) ** 2 / 400).sum() < 27.9


@given(seeds, sizes, st.integers(1, 20), st.integers(0, 5), st.integers(0, 40), st.integers(1, 30))
def test_a_window_is_a_piece_of_the_whole_stream(seed, examples, batch_size, padding, start, count):
    whole = training_batches(seed, examples, batch_size, batch_size + padding, 0, start + count)
    window = training_batches(seed, examples, batch_size, batch_size + padding, start, count)
    for all_of_it, part in zip(whole, window, strict=True):
        assert part.shape == (count, batch_size + padding)
        np.testing.assert_array_equal(part, all_of_it[start:])


@given(seeds, sizes, st.integers(1, 20), st.integers(0, 5), st.integers(0, 3))
def test_each_pass_has_every_example_once_with_weight_one(seed, examples, batch_size, padding, pass_index):
    per_pass = batches_per_pass(examples, batch_size)
    indices, weights = training_batches(
        seed, examples, batch_size, batch_size + padding, pass_index * per_pass, per_pass
    )
    assert indices.dtype == np.int32
    assert weights.dtype == np.float32
    assert set(np.unique(weights)) <= {0, 1}
    assert sorted(indices[weights == 1]) == list(range(examples))
    # What fills up is real images too.
    assert ((indices >= 0) & (indices < examples)).all()
    # Full batches but the last, and its images first.
    assert (weights[:-1].sum(1) == batch_size).all()
    assert weights[-1].sum() == examples - (per_pass - 1) * batch_size
    assert (np.diff(weights, axis=1) <= 0).all()


@given(seeds, st.integers(8, 60), st.integers(1, 20), st.integers(1, 8), st.integers(1, 4), st.integers(0, 2))
def test_parts_are_drawn_in_turn_each_in_its_own_columns(seed, examples, batch_size, parts, devices, pass_index):
    per_pass = batches_per_pass(examples, batch_size)
    first = pass_index * per_pass
    width = parts * -(-batch_size // parts)
    indices, weights = training_batches(seed, examples, batch_size, width, first, per_pass, parts=parts)
    assert sorted(indices[weights == 1]) == list(range(examples))
    assert (weights[:-1].sum(1) == batch_size).all()
    by_part = indices.reshape(per_pass, parts, -1)
    assert (by_part % parts == np.arange(parts)[:, None]).all()  # padding, too
    drawn = weights.reshape(by_part.shape).sum(2)
    assert (np.ptp(drawn, axis=1) <= 1).all()
    # Other numbers of devices have the same batches.
    padded = devices * -(-batch_size // devices)
    others, counted = training_batches(seed, examples, batch_size, padded, first, per_pass, parts=parts)
    for step in range(per_pass):
        assert sorted(others[step][counted[step] == 1]) == sorted(indices[step][weights[step] == 1])


def test_parts_need_an_example_each_and_no_balance():
    labels = np.array([0, 1], np.int32)
    for examples, balanced_by in ((1, None), (2, labels)):
        with pytest.raises(ValueError, match="2 parts"):
            training_batches(0, examples, 1, 2, 0, 1, balanced_by, parts=2)


unequal = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(lambda labels: np.array(labels, np.int32))


@settings(deadline=None, max_examples=50)
@given(seeds, unequal, st.integers(0, 20))
def test_balanced_passes_draw_classes_equally_often(seed, labels, passes):
    drawn = [balanced_order(seed, pass_index, labels) for pass_index in range(passes + 1)]
    for order in drawn:
        assert order.dtype == np.int32
        assert len(order) == len(labels)
        counts = np.bincount(labels[order], minlength=5)[np.unique(labels)]
        assert counts.max() - counts.min() <= 1
    every = np.concatenate(drawn)
    counts = np.bincount(labels[every], minlength=5)[np.unique(labels)]
    assert counts.max() - counts.min() <= 1, "what is left over goes to the classes in turn"
    for label in np.unique(labels):
        times = np.bincount(every, minlength=len(labels))[labels == label]
        assert times.max() - times.min() <= 1, "within a class all are drawn equally often"


def test_balanced_order_is_a_function_of_seed_and_number():
    labels = np.array([0] * 30 + [1] * 3, np.int32)
    orders = {tuple(balanced_order(seed, pass_index, labels)) for seed in range(3) for pass_index in range(3)}
    assert len(orders) == 9
    np.testing.assert_array_equal(balanced_order(2, 1, labels), balanced_order(2, 1, labels))
    # the classes are mixed: the first class's draws are not all in one half
    first_half = labels[balanced_order(0, 0, labels)][:16]
    assert 0 < first_half.sum() < 16


@settings(deadline=None, max_examples=50)
@given(seeds, unequal, st.integers(1, 8), st.integers(0, 40), st.integers(1, 20))
def test_a_balanced_window_is_a_piece_of_the_whole_stream(seed, labels, batch_size, start, count):
    arguments = seed, len(labels), batch_size, batch_size + 1
    whole = training_batches(*arguments, 0, start + count, balanced_by=labels)
    window = training_batches(*arguments, start, count, balanced_by=labels)
    for all_of_it, part in zip(whole, window, strict=True):
        np.testing.assert_array_equal(part, all_of_it[start:])


def test_passes_and_seeds_differ():
    orders = {tuple(permutation(seed, pass_index, 100)) for seed in range(5) for pass_index in range(5)}
    assert len(orders) == 25


def test_no_steps_are_no_batches():
    assert training_batches(0, 10, 4, 8, start=7, count=0)[0].shape == (0, 8)
