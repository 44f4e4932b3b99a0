"""The choice of images."""

import numpy as np

from vision_transfer.tasks.report.image_section import (
    confident_mistakes,
    probability_text,
    unconfident_hits,
)
from vision_transfer.tasks.report.run_files import Predictions


def test_the_most_confident_mistakes_and_the_least_confident_hits():
    logits = np.array([[0, 5], [0, 90], [0, 60], [0, 1], [3, 0], [0.1, 0], [0, 60]])
    files = tuple(f"{place:03}.jpg" for place in range(len(logits)))
    found = Predictions(logits - np.logaddexp(*logits.T)[:, None], np.zeros(len(logits), np.int64), files)
    # two mistakes of equal margin are in the order of their names
    assert confident_mistakes(found).tolist() == [1, 2, 6, 0, 3]
    assert unconfident_hits(found).tolist() == [5, 4]


def test_rounding_makes_nothing_certain():
    assert probability_text(0.99994) == "above 0.9999"
    assert probability_text(0.5) == "0.5000"
