"""Steps per dispatch: they grow with what was learnt, and stay within the time of a dispatch."""

from vision_transfer.training.dispatch import GROWTH, SECONDS_PER_DISPATCH, Pace

SECONDS = SECONDS_PER_DISPATCH / 100


def test_dispatches_grow_to_the_time_of_one():
    pace, counts = Pace(60.0), []
    for _ in range(6):
        counts.append(pace.steps(1000, 1000))
        pace.took(counts[-1], counts[-1] * SECONDS)
    assert counts == [1, 1, GROWTH, GROWTH**2, GROWTH**3, 100]


def test_a_short_dispatch_at_the_end_of_an_epoch_does_not_slow_the_next_one():
    pace = Pace(60.0)
    for count in (1, 4, 16, 64, 1):
        pace.took(count, count * SECONDS)
    assert pace.steps(1000, 1000) == 100
    assert pace.steps(50, 1000) == 50 and pace.steps(1000, 7) == 7
