"""What a page says of the test: figures, and which pictures it chooses."""

import json

import numpy as np
import pytest

from vision_transfer.tasks.report.record import Predictions, read_record
from vision_transfer.tasks.report.test_section import (
    CLASSES_IN_MATRIX,
    calibration_facts,
    class_rows,
    confusion_facts,
    headlines,
    probability_text,
    sure_mistakes,
    unsure_hits,
)


def predictions(logits, labels):
    log_probabilities = np.asarray(logits, float) - np.logaddexp.reduce(logits, axis=1)[:, None]
    return Predictions(log_probabilities, np.asarray(labels), tuple(f"{place:03}.jpg" for place in range(len(labels))))


def test_the_surest_mistakes_and_the_least_sure_hits():
    found = predictions([[0, 5], [0, 90], [0, 60], [0, 1], [3, 0], [0.1, 0], [0, 60]], [0, 0, 0, 0, 0, 0, 0])
    # two mistakes of equal margin stand in the order of their names
    assert sure_mistakes(found).tolist() == [1, 2, 6, 0, 3]
    assert unsure_hits(found).tolist() == [5, 4]


def test_headlines_are_the_results_figures(by_hand):
    record = read_record(by_hand.path)
    found = {one.name: one for one in headlines(record)}
    assert found["Test accuracy"].value == f"{record.result['test']['accuracy']:.4f}"
    assert "95 % interval" in found["Test accuracy"].note
    assert (found["Tested"].value, found["Tested"].note) == ("head, epoch 3", "chosen on validation")
    assert set(found) == {"Test accuracy", "Test loss", "Balanced accuracy", "Calibration error", "Tested", "Trainable"}


def test_the_matrix_is_shown_whole_or_as_its_largest_mistakes(by_hand):
    small = confusion_facts(read_record(by_hand.path))
    assert len(small.counts) == 10 and not small.pairs
    np.testing.assert_allclose(np.sum(small.shares, axis=1), 1)
    result = json.loads(by_hand.result_file.read_text())
    many = CLASSES_IN_MATRIX + 1
    counts = np.eye(many, dtype=int) * 9
    counts[3, 7], counts[5, 2] = 4, 6
    result["test"]["confusion"] = counts.tolist()
    result["dataset"]["classes"] = [f"class {place}" for place in range(many)]
    by_hand.result_file.write_text(json.dumps(result))
    record = read_record(by_hand.path)
    assert confusion_facts(record).pairs == [("class 5", "class 2", 6), ("class 3", "class 7", 4)]
    assert class_rows(record)[5].recall == "0.6000"


@pytest.mark.parametrize(("scale", "opinion"), [(20.0, "over-confident"), (0.2, "under-confident")])
def test_calibration_says_which_way_it_is_wrong(scale, opinion):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    logits = np.stack([1 - labels, labels], axis=1) * 2 + rng.normal(0, 1.5, (400, 2))
    found = calibration_facts(predictions(scale * logits, labels))
    assert opinion in found.verdict and found.error > 0.02


def test_no_predictions_no_calibration():
    assert calibration_facts(None) is None
    assert calibration_facts(predictions(np.zeros((0, 2)), [])) is None


def test_rounding_makes_nothing_certain():
    assert probability_text(0.99994) == "more than 0.9999"
    assert probability_text(0.5) == "0.5000"
