"""The temperature against a grid search, its properties, and how it is kept in a run's folder."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from vision_transfer.errors import UserError
from vision_transfer.predict.temperature import (
    calibration_of,
    fit_of,
    fitted_calibration,
    fitted_temperature,
    held_out_gain,
    probabilities,
)
from vision_transfer.runs.load import load_run


def drawn(seed, examples, classes, sharpness):
    """Logits that are `sharpness` times those that the labels were drawn from."""
    random = np.random.default_rng(seed)
    true = random.normal(0, 2, (examples, classes))
    labels = np.array([random.choice(classes, p=special.softmax(row)) for row in true])
    return (true * sharpness).astype(np.float32), labels


def loss_by_hand(logits, labels, temperature):
    scaled = logits.astype(np.float64) / temperature
    return np.mean(special.logsumexp(scaled, axis=1) - scaled[np.arange(len(labels)), labels])


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 4.0])
def test_it_recovers_the_factor_that_sharpened_the_logits(sharpness):
    logits, labels = drawn(0, 4000, 3, sharpness)
    assert fitted_temperature(logits, labels) == pytest.approx(sharpness, rel=0.1)


def test_it_minimises_the_negative_log_likelihood_on_a_fine_grid():
    logits, labels = drawn(1, 1000, 4, 3.0)
    grid = np.exp(np.linspace(np.log(0.5), np.log(10), 300))
    best = grid[np.argmin([loss_by_hand(logits, labels, temperature) for temperature in grid])]
    temperature = fitted_temperature(logits, labels)
    # The one mistake added to 1,000 examples moves the minimum a little.
    assert temperature == pytest.approx(best, rel=0.02)
    before, after = fit_of(logits, labels, temperature).nll
    assert before == pytest.approx(loss_by_hand(logits, labels, 1), rel=1e-6)
    assert after == pytest.approx(loss_by_hand(logits, labels, temperature), rel=1e-6)
    assert after < before


def test_one_logit_equals_two_with_the_first_at_zero():
    logits, labels = drawn(2, 500, 2, 2.0)
    single = logits[:, 1:] - logits[:, :1]
    assert fitted_temperature(single, labels) == pytest.approx(fitted_temperature(logits, labels), rel=1e-4)
    np.testing.assert_allclose(probabilities(single, 1.3), special.softmax(logits / 1.3, axis=1), atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.2, 5.0), st.integers(0, 100))
def test_scaling_the_logits_scales_the_temperature(factor, seed):
    logits, labels = drawn(seed, 60, 3, 2.0)
    wide = logits.astype(np.float64)
    assert fitted_temperature(wide * factor, labels) == pytest.approx(
        factor * fitted_temperature(wide, labels), rel=1e-3
    )


def test_a_network_without_mistakes_does_not_become_certain():
    labels = np.arange(100) % 2
    logits = np.where(labels == 1, 3.0, -3.0)[:, None]
    temperature = fitted_temperature(logits, labels)
    certainty = probabilities(logits, temperature).max(axis=1)
    # 100 examples, and one mistake in two more.
    np.testing.assert_allclose(certainty, 101 / 102, atol=1e-4)


def test_the_calibration_error_falls():
    logits, labels = drawn(3, 4000, 3, 4.0)
    before, after = fit_of(logits, labels, fitted_temperature(logits, labels)).ece
    assert after < before / 3


@pytest.mark.parametrize("right", [16, 40])
def test_a_few_images_that_are_all_right_leave_it_at_one(right):
    """On 16 of them the fit alone gave 6.1, which raised the calibration error on test from 0.014 to 0.108."""
    labels = np.arange(right) % 2
    logits = np.where(labels == 1, 9.0, -9.0)[:, None]
    assert fitted_temperature(logits, labels) > 2
    assert fitted_calibration((logits, labels), None).temperature == 1


@pytest.mark.parametrize("sharpness", [0.4, 3.0])
def test_it_is_fitted_where_cross_validation_shows_a_gain(sharpness):
    logits, labels = drawn(4, 300, 3, sharpness)
    found = fitted_calibration((logits, labels), (logits, labels))
    assert found.temperature == fitted_temperature(logits, labels)
    assert found.gain > 1
    assert found.test.nll[1] < found.test.nll[0]


def test_it_hardly_ever_hurts_a_network_that_is_calibrated():
    """Over 40 draws of 50 validation images, with the mean change of the loss on 2,000 others far below the fit's."""
    kept = fitted = 0.0
    for seed in range(40):
        validation, test = drawn(seed, 50, 2, 1.0), drawn(seed + 1000, 2000, 2, 1.0)
        before = loss_by_hand(*test, 1.0)
        kept += loss_by_hand(*test, fitted_calibration(validation, None).temperature) - before
        fitted += loss_by_hand(*test, fitted_temperature(*validation)) - before
    assert kept < fitted / 2


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 100), st.integers(1, 30))
def test_the_order_of_classes_does_not_matter(seed, examples):
    logits, labels = drawn(seed, examples, 3, 2.0)
    order = np.array([2, 0, 1])
    places = np.argsort(order)
    assert held_out_gain(logits[:, order], places[labels]) == pytest.approx(held_out_gain(logits, labels), abs=1e-3)


def rewrite_predictions(run, **changes):
    """Changes arrays of `predictions.npz`."""
    with np.load(run / "predictions.npz") as arrays:
        kept = dict(arrays) | changes
    np.savez(run / "predictions.npz", **{name: value for name, value in kept.items() if value is not None})


def test_it_is_fitted_on_the_kept_logits_and_kept(finished_run, copied_run, run_caches, screen):
    with np.load(finished_run / "predictions.npz") as arrays:
        expected = fitted_calibration(
            (arrays["validation_logits"], arrays["validation_labels"]), (arrays["logits"], arrays["labels"])
        )
    kept = json.loads((finished_run / "temperature.json").read_text())
    assert kept["temperature"] == expected.temperature
    assert kept["validation"]["examples"] == 27
    assert calibration_of(load_run(finished_run, run_caches, screen), run_caches, screen) == expected
    # removed in the copy, so it is computed
    assert calibration_of(load_run(copied_run, run_caches, screen), run_caches, screen) == expected


def test_the_kept_temperature_is_used_and_no_edited_one(finished_run, copied_run, seal, run_caches, screen):
    kept = json.loads((finished_run / "temperature.json").read_text()) | {"temperature": 7.0}
    (copied_run / "temperature.json").write_text(json.dumps(kept))
    with pytest.raises(UserError, match=r"temperature\.json: is damaged or was edited"):
        load_run(copied_run, run_caches, screen)
    seal(copied_run)
    assert calibration_of(load_run(copied_run, run_caches, screen), run_caches, screen).temperature == 7.0


def test_missing_logits_are_computed_from_the_data(copied_run, seal, run_caches, screen):
    expected = calibration_of(load_run(copied_run, run_caches, screen), run_caches, screen)
    rewrite_predictions(copied_run, validation_logits=None, validation_labels=None)
    seal(copied_run)
    assert calibration_of(load_run(copied_run, run_caches, screen), run_caches, screen) == expected


def test_without_logits_and_data_a_message_says_that_nothing_is_calibrated(
    copied_run, seal, run_caches, screen, tmp_path
):
    rewrite_predictions(copied_run, validation_logits=None, validation_labels=None)
    seal(copied_run)
    config = json.loads((copied_run / "config.json").read_text())
    config["dataset"]["root"] = str(tmp_path / "gone")
    (copied_run / "config.json").write_text(json.dumps(config))
    assert calibration_of(load_run(copied_run, run_caches, screen), run_caches, screen) is None
    assert "not calibrated" in screen.console.file.getvalue()
    assert not (copied_run / "temperature.json").exists()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("predictions.npz", b"PK no zip"),
        ("temperature.json", b'{"temperature": -1}'),
        ("temperature.json", b'{"temperature": 1' + b"0" * 400 + b"}"),
    ],
    ids=["zip", "negative", "overflow"],
)
def test_a_damaged_file_is_named(copied_run, run_caches, screen, file, content):
    run = load_run(copied_run, run_caches, screen)
    (copied_run / file).write_bytes(content)
    with pytest.raises(UserError, match=file):
        calibration_of(run, run_caches, screen)


def test_many_images_in_the_order_of_their_classes_are_all_asked():
    """One class is overconfident; cross-validation uses 2,000 images, which must not be those of the other."""
    logits, labels = drawn(5, 5000, 2, 1.0)
    order = np.argsort(labels, kind="stable")
    logits, labels = logits[order], labels[order]
    logits[labels == 1] *= 6
    shuffled = np.random.default_rng(1).permutation(len(labels))
    found, expected = held_out_gain(logits, labels), held_out_gain(logits[shuffled], labels[shuffled])
    assert found > 1 and found == pytest.approx(expected, rel=0.3)
