"""Rooflines of known numbers, and figures that cannot be."""

import pytest

from vision_transfer.tasks.benchmark.chips import chip_peaks, known_chip
from vision_transfer.tasks.benchmark.roofline import roofline, with_doubts
from vision_transfer.tasks.benchmark.worker import spread

PEAK = {"flops": 1e12, "bandwidth": 1e11, "source": "a data sheet"}


def record(median=1.0, flops=10, freeze="none", source="images", **values):
    return {
        **{"backbone": "vgg16", "precision": "bfloat16", "work": "step", "batch": 4, "freeze": freeze},
        **{"source": source, "table": {"flops": flops / (1 + (source == "features"))}},
        **{"seconds": spread([median] * 3)},
        **{"mfu": 0.5, "bandwidth_share": 0.5, "peak": PEAK, "roofline": roofline(1e12, 1e10, PEAK)},
        **values,
    }


@pytest.mark.parametrize(
    ("flops", "moved", "links", "bound", "seconds"),
    [(2e12, 1e10, 0.0, "products", 2.0), (1e12, 2e11, 0.0, "memory", 2.0), (1e12, 1e10, 3.0, "links", 3.0)],
)
def test_the_longest_of_three_times_bounds(flops, moved, links, bound, seconds):
    found = roofline(flops, moved, PEAK, links)
    assert (found["bound"], max(found["seconds"].values())) == (bound, seconds)
    # left of the roof's edge a program is bound by memory, right of it by products
    if not links:
        assert (found["flops_per_byte"] < found["edge_flops_per_byte"]) == (bound == "memory")


def test_an_h100s_edge_is_where_its_data_sheet_puts_it():
    peak = chip_peaks(known_chip("NVIDIA H100 80GB HBM3"), "bfloat16", 2)
    assert roofline(1.0, 1.0, peak)["edge_flops_per_byte"] == pytest.approx(989 / 3.35)


def doubts(*records):
    return [found["doubts"] for found in with_doubts(records)]


def test_plausible_figures_are_not_doubted():
    assert doubts(record(2.0), record(1.0, 5, "all"), record(0.5, 5, "all", "features")) == [[], [], []]
    assert doubts(record(seconds=None)) == [[]]


@pytest.mark.parametrize(
    ("values", "cause"),
    [
        ({"mfu": 1.2}, "rounded to a faster precision"),
        ({"mfu": 1.2, "peak": {**PEAK, "source": "measured: products"}}, "Winograd"),
        ({"bandwidth_share": 1.5}, "stay in caches"),
    ],
)
def test_more_than_the_chip_can_do_is_doubted_with_a_cause(values, cause):
    ((doubt,),) = doubts(record(**values))
    assert cause in doubt


def test_a_frozen_step_slower_than_a_trained_one_is_doubted():
    plain, (doubt,) = doubts(record(1.0), record(1.3, 5, "all"))
    assert plain == []
    assert "1.30 times" in doubt and "frozen: none" in doubt and "autotuning" in doubt


def test_cached_features_slower_than_images_are_doubted():
    plain, (doubt,) = doubts(record(1.0, 5, "all"), record(1.3, 5, "all", "features"))
    assert plain == []
    assert "from images" in doubt


def test_noise_and_small_operations_are_told_apart():
    noisy = record(1.3, 5, "all", seconds=spread([0.5, 1.3, 1.7]))
    tiny = record(1.3, 5, "all", roofline=roofline(1e9, 1e7, PEAK))
    for slow, cause in ((noisy, "noise"), (tiny, "larger batch")):
        _, (doubt,) = doubts(record(1.0), slow)
        assert cause in doubt
    # another batch or network has nothing to do with it
    assert doubts(record(1.0, batch=8), record(1.3, 5, "all")) == [[], []]
