"""The temperature kept in a run's folder: from kept logits, from the data, or not at all."""

import json

import numpy as np
import pytest

from vision_transfer.errors import UserError
from vision_transfer.predict.calibrate import calibration_of
from vision_transfer.predict.temperature import fitted_temperature
from vision_transfer.runs.load import load_run


def rewrite_predictions(run, **changes):
    with np.load(run / "predictions.npz") as arrays:
        kept = dict(arrays) | changes
    np.savez(run / "predictions.npz", **{name: value for name, value in kept.items() if value is not None})


def test_it_is_fitted_on_the_kept_logits_and_kept(copied_run, caches, screen):
    run = load_run(copied_run, caches, screen)
    calibration = calibration_of(run, caches, screen)
    with np.load(copied_run / "predictions.npz") as arrays:
        expected = fitted_temperature(arrays["validation_logits"], arrays["validation_labels"])
    assert calibration.temperature == expected
    kept = json.loads((copied_run / "temperature.json").read_text())
    assert kept["temperature"] == expected
    assert kept["validation"]["examples"] == 27
    assert calibration_of(run, caches, screen) == calibration


def test_what_is_kept_is_used_until_the_predictions_are_others(copied_run, caches, screen):
    run = load_run(copied_run, caches, screen)
    calibration_of(run, caches, screen)
    file = copied_run / "temperature.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"temperature": 7.0}))
    assert calibration_of(run, caches, screen).temperature == 7.0
    with np.load(copied_run / "predictions.npz") as arrays:
        rewrite_predictions(copied_run, validation_logits=3 * arrays["validation_logits"])
    assert calibration_of(run, caches, screen).temperature != 7.0


def test_a_run_without_kept_logits_computes_them_from_its_data(copied_run, caches, screen):
    run = load_run(copied_run, caches, screen)
    expected = calibration_of(run, caches, screen)
    rewrite_predictions(copied_run, validation_logits=None, validation_labels=None)
    assert calibration_of(run, caches, screen) == expected


def test_without_logits_and_data_it_is_said_that_nothing_is_calibrated(copied_run, caches, screen, tmp_path):
    rewrite_predictions(copied_run, validation_logits=None, validation_labels=None)
    config = json.loads((copied_run / "config.json").read_text())
    config["dataset"]["root"] = str(tmp_path / "gone")
    (copied_run / "config.json").write_text(json.dumps(config))
    assert calibration_of(load_run(copied_run, caches, screen), caches, screen) is None
    assert "not calibrated" in screen.console.file.getvalue()
    assert not (copied_run / "temperature.json").exists()


@pytest.mark.parametrize(
    ("file", "content"),
    [("predictions.npz", b"PK no zip"), ("temperature.json", b'{"predictions_sha256": "SHA", "temperature": -1}')],
)
def test_a_damaged_file_is_named(copied_run, caches, screen, file, content):
    from vision_transfer.runtime.files import file_sha256

    content = content.replace(b"SHA", file_sha256(copied_run / "predictions.npz").encode())
    run = load_run(copied_run, caches, screen)
    (copied_run / file).write_bytes(content)
    with pytest.raises(UserError, match=file):
        calibration_of(run, caches, screen)
