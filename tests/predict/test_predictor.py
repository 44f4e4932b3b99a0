"""A run on image files: predictions for its own test files equal those of its test, bit for bit."""

import numpy as np
import pytest
from scipy.ndimage import shift

from vision_transfer.data.images.decode import decode_file
from vision_transfer.data.images.resize import resize
from vision_transfer.errors import UserError
from vision_transfer.metrics.classification import class_log_probabilities
from vision_transfer.predict import Predictor


@pytest.fixture(scope="module")
def predictor(finished_run, run_caches):
    return Predictor.load(finished_run, run_caches)


@pytest.fixture(scope="module")
def tested(finished_run):
    with np.load(finished_run / "predictions.npz") as arrays:
        return dict(arrays)


def test_predictions_for_the_test_files_equal_those_of_the_test(predictor, class_folders, tested):
    found = predictor([class_folders / file for file in tested["files"]])
    np.testing.assert_array_equal(np.stack([prediction.logits for prediction in found]), tested["logits"])
    own = np.exp(class_log_probabilities(tested["logits"].astype(np.float64) / predictor.temperature))
    np.testing.assert_array_equal(np.stack([prediction.probabilities for prediction in found]), own)
    for prediction in found:
        best = int(np.argmax(prediction.probabilities))
        assert prediction.class_name == predictor.classes[best]
        assert prediction.probability == prediction.probabilities[best]
        assert prediction.error is None


def test_validation_logits_are_kept_for_calibration(predictor, tested):
    assert len(tested["validation_logits"]) == len(tested["validation_labels"]) == 27
    assert predictor.calibration.validation.examples == 27
    assert predictor.calibration.test.examples == 21


def test_files_that_are_no_images_give_an_error_and_do_not_change_the_others(predictor, class_folders, tmp_path):
    good = sorted((class_folders / "test").rglob("*.png"))[:6]
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no image")
    mixed = [tmp_path / "empty.jpg", *good[:3], tmp_path / "missing.jpg", *good[3:], tmp_path / "text.jpg"]
    found = {prediction.file: prediction for prediction in predictor(mixed)}
    assert list(found) == list(map(str, mixed))
    assert "empty" in found[str(tmp_path / "empty.jpg")].error
    assert "No such file" in found[str(tmp_path / "missing.jpg")].error
    assert "not an image" in found[str(tmp_path / "text.jpg")].error
    assert found[str(tmp_path / "text.jpg")].class_name is None
    for alone in predictor(good):
        np.testing.assert_array_equal(found[alone.file].logits, alone.logits)


def test_logits_are_averaged_over_views(finished_run, run_caches, predictor, class_folders):
    files = sorted((class_folders / "test").rglob("*.png"))[:2]
    averaged = Predictor.load(finished_run, run_caches, views="flip,shifts")
    one = predictor.form
    images = np.stack([resize(decode_file(file, one.channels), one.size, one.resampling) for file in files])
    images = images[np.arange(predictor.batch_size) % len(files)]
    by = round(one.size / 16)
    seen = [images, np.flip(images, 2)]
    seen += [shift(images, (0, rows, rows, 0), order=0, mode="nearest") for rows in (-by, by)]
    expected = np.mean(list(predictor.logits(seen)), axis=0)[: len(files)]
    found = averaged(files)
    np.testing.assert_allclose(np.stack([prediction.logits for prediction in found]), expected, rtol=1e-6)
    assert np.abs(expected - np.stack([prediction.logits for prediction in predictor(files)])).max() > 0


def test_unknown_views_are_a_message(finished_run, run_caches):
    with pytest.raises(UserError, match=r"views 'flips'.*flip"):
        Predictor.load(finished_run, run_caches, views="flips")


def test_no_files_give_no_predictions(predictor):
    assert predictor([]) == []
