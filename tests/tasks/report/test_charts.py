"""Geometry of charts: ticks and points in the view box, gaps, logarithmic axes, calibration."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vision_transfer.metrics.calibration import reliability
from vision_transfer.tasks.report.charts import HEIGHT, WIDTH, Scale, Series, line_chart, reliability_chart

POINT = re.compile(r"[ML]([-\d.]+) ([-\d.]+)")


def chart(ys, is_loss=True, **more):
    series = [Series("train", "train", range(1, len(ys) + 1), ys, **more)]
    return line_chart("Loss", "it falls", "epoch", "loss", series, is_loss=is_loss)


# imports and a busy machine take longer than hypothesis allows
@given(st.lists(st.floats(1e-8, 1e8) | st.just(math.nan), min_size=1, max_size=60))
def test_all_is_inside_the_view_box(values):
    drawn = chart(values, dots=True)
    if not any(map(math.isfinite, values)):
        assert drawn is None
        return
    points = [tuple(map(float, found)) for found in POINT.findall(drawn["lines"][0]["path"])]
    assert len(points) == sum(map(math.isfinite, values))
    for x, y in points:
        assert drawn["left"] <= x <= drawn["right"] and drawn["top"] <= y <= drawn["bottom"]
    places = [place for place, _ in drawn["y_ticks"]]
    assert len(places) >= 2 and places == sorted(places, reverse=True)
    assert all(drawn["top"] - 0.1 <= place <= drawn["bottom"] + 0.1 for place in places)
    assert all(drawn["left"] <= place <= drawn["right"] for place, _ in drawn["x_ticks"])


def test_a_gap_starts_a_new_line():
    path = chart([1.0, 2.0, math.nan, 3.0])["lines"][0]["path"]
    assert re.sub(r"[\d.]+ [\d.]+", "", path) == "MLM"


def test_losses_of_many_sizes_are_logarithmic():
    wide, narrow = chart([100.0, 10.0, 1.0, 0.1]), chart([1.0, 0.8, 0.4])
    assert "logarithmic" in wide["y_label"] and "logarithmic" not in narrow["y_label"]
    ys = [float(y) for _, y in POINT.findall(wide["lines"][0]["path"])]
    np.testing.assert_allclose(np.diff(ys), ys[1] - ys[0], atol=0.2)
    assert [label for _, label in wide["y_ticks"]] == ["0.1", "1", "10", "100"]


def test_one_epoch_is_a_dot_and_the_best_is_ringed():
    drawn = chart([0.5], ring=1)
    (line,) = drawn["lines"]
    assert len(line["dots"]) == 1 and line["ring"] == line["dots"][0]
    assert [label for _, label in drawn["x_ticks"]] == ["1"]


@pytest.mark.parametrize("logarithmic", [False, True])
def test_scales_are_monotone_from_end_to_end(logarithmic):
    scale = Scale(1, 1000, 10, 300, logarithmic)
    assert scale.place(1) == 10 and scale.place(1000) == 300
    assert 10 < scale.place(30) < scale.place(300) < 300


def test_the_calibration_curve_shows_its_bins():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), 400)
    found = reliability(probabilities, rng.integers(0, 3, 400))
    drawn, filled = reliability_chart(found, 0.1), int((found.counts > 0).sum())
    spans, bars, dots = drawn["spans"], drawn["bars"], drawn["lines"][1]["dots"]
    assert len(spans) == len(bars) == len(dots) == filled
    for (span_x, low, high), (x, y) in zip(spans, dots, strict=True):
        assert span_x == x and high <= y <= low
    assert all(0 < x < WIDTH and 0 < height < HEIGHT for x, _, height in bars)
    assert drawn["description"].count("confidence") == filled
