"""Learning curves: arrays from `metrics.jsonl`, smoothed as in the textbook, and their figure."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vision_transfer.tasks.report.curves import draw_curves, learning_curves_figure, smooth, stage_curves


def published_smooth_curve(points, factor=0.8):
    """Chollet, "Deep Learning with Python" (2017), section 5.2."""
    smoothed_points = []
    for point in points:
        previous = smoothed_points[-1] if smoothed_points else None
        smoothed_points.append(point if previous is None else previous * factor + point * (1 - factor))
    return smoothed_points


def record(stage, epoch, **values):
    names = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
    return {"stage": stage, "epoch": epoch, **dict.fromkeys(names, 0.5), "lr": 1e-3, "seconds": 1.0, **values}


RECORDS = [
    *[record("head", epoch, train_loss=1 / epoch, validation_loss=0.3 + 1 / epoch) for epoch in (1, 2, 3)],
    *[record("block5", epoch, train_loss=0.3, validation_loss=None, validation_accuracy=None) for epoch in (1, 2)],
]


@given(st.lists(st.floats(-10, 10), max_size=20), st.floats(0, 0.99))
def test_smoothing_is_the_textbooks(values, factor):
    np.testing.assert_allclose(smooth(np.array(values), factor), published_smooth_curve(values, factor), atol=1e-12)


def test_the_default_factor_is_the_textbooks():
    np.testing.assert_allclose(smooth(np.array([1.0, 0.0, 0.0])), [1.0, 0.8, 0.64])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_leaves_a_gap_and_nothing_else(bad):
    smoothed = smooth(np.array([bad, 1.0, bad, 0.0]), 0.5)
    np.testing.assert_array_equal(smoothed, [math.nan, 1.0, math.nan, 0.5])


def test_stages_are_in_the_order_of_the_run():
    head, block5 = stage_curves(RECORDS, {"head": 3})
    assert (head.stage, head.best_epoch, block5.stage, block5.best_epoch) == ("head", 3, "block5", None)
    np.testing.assert_array_equal(head.epochs, [1, 2, 3])
    np.testing.assert_allclose(head.values["train_loss"], [1, 1 / 2, 1 / 3])
    np.testing.assert_allclose(head.smoothed("train_loss"), published_smooth_curve([1, 1 / 2, 1 / 3]))
    assert np.isnan(block5.values["validation_loss"]).all()


def test_the_figure_shows_what_was_recorded():
    stages = stage_curves(RECORDS, {"head": 3})
    axes = learning_curves_figure(stages, "a run").axes
    assert [panel.get_title() for panel in axes[:2]] == ["stage head", "stage block5"]
    assert [panel.get_ylabel() for panel in axes[::2]] == ["loss", "accuracy"]
    assert [panel.get_xlabel() for panel in axes[2:]] == ["epoch", "epoch"]
    lines = {line.get_label(): line for line in axes[0].get_lines()}
    assert list(lines) == [
        "train, each epoch", "train, smoothed", "validation, each epoch", "validation, smoothed", "best epoch"
    ]  # fmt: skip
    np.testing.assert_allclose(lines["validation, each epoch"].get_ydata(), stages[0].values["validation_loss"])
    np.testing.assert_allclose(lines["validation, smoothed"].get_ydata(), stages[0].smoothed("validation_loss"))
    np.testing.assert_allclose(lines["best epoch"].get_xydata(), [[3, 0.3 + 1 / 3]])
    # Without validation there are neither its curves nor a best epoch.
    assert [line.get_label() for line in axes[1].get_lines()] == ["train, each epoch", "train, smoothed"]


@pytest.mark.parametrize("records", [RECORDS, RECORDS[:1], []], ids=["two stages", "one epoch", "nothing"])
def test_the_figure_is_written_whole(tmp_path, records):
    path = tmp_path / "figures" / "curves.png"
    draw_curves(records, {"head": 1}, path, "a [run] with $x^_$")
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
    assert [file.name for file in path.parent.iterdir()] == ["curves.png"]


def test_pandas_reads_the_records_in_one_line(tmp_path):
    pandas = pytest.importorskip("pandas", exc_type=ImportError)
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in RECORDS))
    frame = pandas.read_json(path, lines=True)
    assert frame.to_dict("list")["stage"] == [line["stage"] for line in RECORDS]
    np.testing.assert_allclose(frame.train_loss, [line["train_loss"] for line in RECORDS])
    assert frame.validation_loss.isna().tolist() == [False] * 3 + [True] * 2
    assert frame.groupby("stage").epoch.max().to_dict() == {"head": 3, "block5": 2}
