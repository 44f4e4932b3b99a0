"""A run on picture files: what it says of its own test files is what it said in its test, bit for bit."""

import csv
import json

import numpy as np
import pytest

from vision_transfer.errors import UserError
from vision_transfer.metrics.classification import class_log_probabilities
from vision_transfer.predict import Predictor
from vision_transfer.predict.evaluate import evaluate
from vision_transfer.predict.task import predict


@pytest.fixture(scope="module")
def predictor(finished_run, caches):
    return Predictor.load(finished_run, caches)


@pytest.fixture(scope="module")
def tested(finished_run):
    with np.load(finished_run / "predictions.npz") as arrays:
        return dict(arrays)


def test_it_says_of_the_test_files_what_the_run_said(predictor, pictures, tested):
    found = predictor([pictures / file for file in tested["files"]])
    np.testing.assert_array_equal(np.stack([prediction.logits for prediction in found]), tested["logits"])
    own = np.exp(class_log_probabilities(tested["logits"].astype(np.float64) / predictor.temperature))
    np.testing.assert_array_equal(np.stack([prediction.probabilities for prediction in found]), own)
    for prediction in found:
        best = int(np.argmax(prediction.probabilities))
        assert prediction.class_name == predictor.classes[best]
        assert prediction.probability == prediction.probabilities[best]
        assert prediction.error is None


def test_validation_is_kept_for_calibration(predictor, tested):
    assert len(tested["validation_logits"]) == len(tested["validation_labels"]) == 27
    assert predictor.calibration.validation.examples == 27
    assert predictor.calibration.test.examples == 21


def test_files_that_are_no_pictures_say_why_and_leave_the_others_alone(predictor, pictures, tmp_path):
    good = sorted((pictures / "test").rglob("*.png"))[:6]
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no picture")
    mixed = [tmp_path / "empty.jpg", *good[:3], tmp_path / "missing.jpg", *good[3:], tmp_path / "text.jpg"]
    found = {prediction.file: prediction for prediction in predictor(mixed)}
    assert list(found) == list(map(str, mixed))
    assert "empty" in found[str(tmp_path / "empty.jpg")].error
    assert "No such file" in found[str(tmp_path / "missing.jpg")].error
    assert "not an image" in found[str(tmp_path / "text.jpg")].error
    assert found[str(tmp_path / "text.jpg")].class_name is None
    for alone in predictor(good):
        np.testing.assert_array_equal(found[alone.file].logits, alone.logits)


def test_no_files_are_no_predictions(predictor):
    assert predictor([]) == []


def test_the_table_of_a_pattern(finished_run, pictures, caches, screen, tmp_path, predictor):
    out = tmp_path / "new" / "predictions.csv"
    predict(finished_run, str(pictures / "test/**/*.*"), str(out), caches, screen)
    with out.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 21
    for row, prediction in zip(rows, predictor([row["file"] for row in rows]), strict=True):
        assert row["class"] == prediction.class_name
        shares = [float(row[f"probability_{name}"]) for name in predictor.classes]
        np.testing.assert_allclose(shares, prediction.probabilities, rtol=1e-8)
    shown = screen.console.file.getvalue()
    assert "temperature" in shown and "grey [or so]" in shown
    assert [path.name for path in out.parent.iterdir()] == ["predictions.csv"]


def test_what_is_missing_is_said(finished_run, caches, screen, tmp_path):
    with pytest.raises(UserError, match="--out"):
        predict(finished_run, "*.jpg", None, caches, screen)
    with pytest.raises(UserError, match="not the folder of a run"):
        predict(tmp_path, __file__, str(tmp_path / "out.csv"), caches, screen)


class TestEvaluate:
    def test_its_own_test_split_gives_its_own_figures(self, finished_run, caches, screen, tmp_path):
        evaluate(finished_run, None, None, str(tmp_path / "out.json"), caches, screen)
        found = json.loads((tmp_path / "out.json").read_text())
        result = json.loads((finished_run / "result.json").read_text())
        for name in ("accuracy", "loss", "accuracy_ci95", "confusion", "examples"):
            assert found[name] == result["test"][name]
        assert "result.json says" in screen.console.file.getvalue()

    def test_a_folder_of_class_folders(self, finished_run, pictures, caches, screen, tmp_path):
        (tmp_path / "dark").symlink_to(pictures / "test" / "dark")
        evaluate(finished_run, str(tmp_path), None, str(tmp_path / "out.json"), caches, screen)
        found = json.loads((tmp_path / "out.json").read_text())
        result = json.loads((finished_run / "result.json").read_text())
        assert found["confusion"][1] == result["test"]["confusion"][1]
        assert found["examples"] == 7
        assert found["per_class"][0]["recall"] is None

    def test_other_classes_are_refused(self, finished_run, caches, screen, tmp_path):
        (tmp_path / "wolves").mkdir()
        with pytest.raises(UserError, match=r"wolves.*bright, dark"):
            evaluate(finished_run, str(tmp_path), None, None, caches, screen)
