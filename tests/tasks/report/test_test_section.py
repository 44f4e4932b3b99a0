"""The test results on a page: metrics, confusion matrix and calibration."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from vision_transfer.metrics.ranking import counts_by_threshold
from vision_transfer.tasks.report.run_files import Predictions, read_run_files
from vision_transfer.tasks.report.test_section import (
    CLASSES_IN_MATRIX,
    MOST_POINTS,
    _thinned,
    calibration_section,
    class_rows,
    confusion_table,
    headlines,
)


def predictions(logits, labels):
    log_probabilities = np.asarray(logits, float) - np.logaddexp.reduce(logits, axis=1)[:, None]
    return Predictions(log_probabilities, np.asarray(labels), tuple(f"{place:03}.jpg" for place in range(len(labels))))


def test_headlines_are_the_metrics_of_the_result(by_hand):
    run = read_run_files(by_hand.path)
    found = headlines(run)
    assert found["Test accuracy"][0] == f"{run.result['test']['accuracy']:.4f}"
    assert "95 % interval" in found["Test accuracy"][1]
    assert found["Tested"] == ("head, epoch 3", "chosen on validation")
    assert set(found) == {"Test accuracy", "Test loss", "Balanced accuracy", "Calibration error", "Tested", "Trainable"}


def test_a_large_matrix_is_shown_as_its_most_frequent_mistakes(by_hand):
    small = confusion_table(read_run_files(by_hand.path))
    assert len(small["counts"]) == 10 and not small["mistakes"]
    np.testing.assert_allclose(np.sum(small["shares"], axis=1), 1)
    result = json.loads(by_hand.result_file.read_text())
    many = CLASSES_IN_MATRIX + 1
    counts = np.eye(many, dtype=int) * 9
    counts[3, 7], counts[5, 2] = 4, 6
    result["test"]["confusion"] = counts.tolist()
    result["dataset"]["classes"] = [f"class {place}" for place in range(many)]
    by_hand.result_file.write_text(json.dumps(result))
    run = read_run_files(by_hand.path)
    assert confusion_table(run)["mistakes"] == [("class 5", "class 2", 6), ("class 3", "class 7", 4)]
    assert class_rows(run)[5][3] == "0.6000"


@pytest.mark.parametrize(("scale", "opinion"), [(20.0, "over-confident"), (0.2, "under-confident")])
def test_the_verdict_on_calibration(scale, opinion):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    logits = np.stack([1 - labels, labels], axis=1) * 2 + rng.normal(0, 1.5, (400, 2))
    verdict, _ = calibration_section(predictions(scale * logits, labels))
    error = re.match(r"Expected calibration error (\S+)", verdict)
    assert opinion in verdict and float(error[1]) > 0.02


def test_networks_of_folds_are_not_called_the_run_s():
    """They predicted without their temperatures, which are of other networks than the run's."""
    labels = np.arange(400) % 2
    logits = np.random.default_rng(0).normal(np.stack([1 - labels, labels], axis=1), 1)
    verdict, _ = calibration_section(replace(predictions(logits, labels), is_out_of_fold=True))
    assert "of the networks of the folds, without a temperature" in verdict and "networks of the folds are" in verdict


@pytest.mark.parametrize(("count", "positives"), [(50_000, 50), (10_000, 100), (3_000, 1_500)])
def test_thinned_curves_are_those_of_all_points(count, positives):
    """Also of a rare class, most of whose points are at recall 1, and where a curve rises at once."""
    rng = np.random.default_rng(0)
    positive = np.arange(count) < positives
    found = counts_by_threshold(rng.normal(4.0 * positive, 1), positive)
    for xs, ys in ((found.recall[1:], found.precision), (found.false_positive_rate, found.recall)):
        thin_xs, thin_ys = _thinned(xs, ys)
        assert len(thin_xs) <= 2 * MOST_POINTS
        assert np.trapezoid(thin_ys, thin_xs) == pytest.approx(np.trapezoid(ys, xs), abs=2e-3)


def test_no_predictions_no_calibration():
    assert calibration_section(None) is None
    assert calibration_section(predictions(np.zeros((0, 2)), [])) is None
