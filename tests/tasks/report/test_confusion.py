"""The confusion figure: every number in its cell, shares as shades, legible from 2 to 100 classes."""

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.image import imread

from vision_transfer.tasks.report.confusion import confusion_figure, draw_confusion, row_shares


def test_every_count_is_in_its_cell():
    counts = [[8, 2, 0], [0, 0, 0], [1, 0, 1234]]
    axes = confusion_figure(counts, ["a", "b", "c"]).axes[0]
    written = {text.get_position(): text.get_text() for text in axes.texts}
    assert written == {(0, 0): "8", (1, 0): "2", (0, 2): "1", (2, 2): "1234"}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "label")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
    assert axes.get_title() == "1,242 of 1,245 images correct"
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.8, 0.2, 0], [0, 0, 0], [1 / 1235, 0, 1234 / 1235]])


def test_shares_of_a_class_without_images_are_zero():
    np.testing.assert_array_equal(row_shares(np.array([[0, 0], [1, 3]])), [[0, 0], [0.25, 0.75]])


@pytest.mark.parametrize("classes", [2, 100])
def test_labels_do_not_overlap(classes):
    counts = np.eye(classes, dtype=int) * 5 + 1
    names = [f"class number {place} with a long name" for place in range(classes)]
    figure = confusion_figure(counts.tolist(), names)
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    boxes.sort(key=lambda box: box.y0)
    assert all(below.y1 <= above.y0 for below, above in pairwise(boxes))
    sides = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
    assert min(box.y0 for box in sides) >= 0
    assert min(box.x0 for box in boxes) >= 0
    smallest = min(label.get_fontsize() for label in figure.axes[0].get_yticklabels())
    assert smallest >= 4.5


def test_the_figure_is_written(tmp_path):
    draw_confusion([[3, 1], [0, 2]], ["cat", "dog"], tmp_path / "figures" / "confusion.png")
    assert imread(tmp_path / "figures" / "confusion.png").shape[0] >= 500
