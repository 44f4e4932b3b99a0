"""The test results on a page: metrics, confusion matrix and calibration."""

import json
import re

import numpy as np
import pytest

from vision_transfer.tasks.report.run_files import Predictions, read_run_files
from vision_transfer.tasks.report.test_section import (
    CLASSES_IN_MATRIX,
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


def test_no_predictions_no_calibration():
    assert calibration_section(None) is None
    assert calibration_section(predictions(np.zeros((0, 2)), [])) is None
