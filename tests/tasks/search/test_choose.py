"""The one-standard-error rule and the Pareto front."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vision_transfer.metrics.classification import wilson_interval
from vision_transfer.metrics.cross_validation import out_of_fold_interval
from vision_transfer.tasks.search.candidates import Base, Candidate
from vision_transfer.tasks.search.choose import Scored, best, chosen, front, not_worse

OUTCOMES = st.lists(st.booleans(), min_size=12, max_size=12)
CANDIDATES = st.lists(st.tuples(OUTCOMES, st.floats(0.1, 100)), min_size=1, max_size=8)


def made(values):
    return [
        Scored(Candidate(Base("vgg16", size)), np.array(correct), 0.5, cost, cost, (12,))
        for size, (correct, cost) in enumerate(values, start=1)
    ]


def test_the_interval_of_folds_is_wider_where_they_differ(scored):
    whole = scored([True] * 30 + [False] * 30)
    folds = replace(whole, images=(30, 30))
    assert whole.interval == wilson_interval(30, 60)
    assert folds.interval == out_of_fold_interval(whole.correct, np.arange(60) // 30)
    assert folds.interval[0] < whole.interval[0]


def test_a_cheaper_candidate_wins_unless_it_is_more_than_one_standard_error_worse(scored):
    # The differences of d of 100 images in one direction have the mean d / 100 and the standard error
    # sqrt(d / 100 · (1 - d / 100) / 99): 0.0100 for one image, 0.0141 for two.
    top = scored([True] * 95 + [False] * 5, cost=10)
    one_less = scored([True] * 94 + [False] * 6, cost=1, size=64)
    two_less = scored([True] * 93 + [False] * 7, cost=1, size=32)
    assert chosen([top, one_less]) is one_less
    assert chosen([top, two_less]) is top


@pytest.mark.parametrize("both", [0, 20])
def test_images_on_which_candidates_disagree_both_ways_widen_the_standard_error(scored, both):
    top = np.ones(100, bool)
    other = np.ones(100, bool)
    other[:2] = False
    top[10 : 10 + both], other[40 : 40 + both] = False, False
    assert not_worse(scored(other), scored(top)) == (both > 0)


def test_of_equals_the_one_with_the_lower_loss_is_best(scored):
    first, second = scored([True, False], loss=0.4), scored([True, False], loss=0.3, size=64)
    assert best([first, second]) is second


@given(CANDIDATES)
def test_the_choice_costs_at_most_what_the_best_costs_and_is_not_shown_to_be_worse(values):
    scored = made(values)
    winner, top = chosen(scored), best(scored)
    assert winner.cost <= top.cost
    assert not_worse(winner, top)
    assert chosen(scored[::-1]).cost == winner.cost


@given(CANDIDATES)
def test_no_candidate_beats_one_on_the_front(values):
    scored = made(values)
    steps = front(scored)
    assert best(scored).accuracy == steps[-1].accuracy
    for step in steps:
        assert not any(one.cost <= step.cost and one.accuracy > step.accuracy for one in scored)
        assert not any(one.cost < step.cost and one.accuracy >= step.accuracy for one in scored)
