"""The temperature against a search of its own, and its laws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from vision_transfer.predict.temperature import fit_of, fitted_temperature, probabilities


def drawn(seed, examples, classes, sharpness):
    """Logits that are `sharpness` times those that the labels were drawn by."""
    random = np.random.default_rng(seed)
    true = random.normal(0, 2, (examples, classes))
    labels = np.array([random.choice(classes, p=special.softmax(row)) for row in true])
    return (true * sharpness).astype(np.float32), labels


def loss_by_hand(logits, labels, temperature):
    scaled = logits.astype(np.float64) / temperature
    return np.mean(special.logsumexp(scaled, axis=1) - scaled[np.arange(len(labels)), labels])


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 4.0])
def test_it_finds_what_the_logits_were_sharpened_by(sharpness):
    logits, labels = drawn(0, 4000, 3, sharpness)
    assert fitted_temperature(logits, labels) == pytest.approx(sharpness, rel=0.1)


def test_it_minimises_the_likelihood_of_a_fine_grid():
    logits, labels = drawn(1, 1000, 4, 3.0)
    grid = np.exp(np.linspace(np.log(0.5), np.log(10), 300))
    best = grid[np.argmin([loss_by_hand(logits, labels, temperature) for temperature in grid])]
    temperature = fitted_temperature(logits, labels)
    # The one mistake that is added to 1,000 examples moves it a little.
    assert temperature == pytest.approx(best, rel=0.02)
    before, after = fit_of(logits, labels, temperature).nll
    assert before == pytest.approx(loss_by_hand(logits, labels, 1), rel=1e-6)
    assert after == pytest.approx(loss_by_hand(logits, labels, temperature), rel=1e-6)
    assert after < before


def test_one_logit_is_two_with_the_first_at_zero():
    logits, labels = drawn(2, 500, 2, 2.0)
    single = logits[:, 1:] - logits[:, :1]
    assert fitted_temperature(single, labels) == pytest.approx(fitted_temperature(logits, labels), rel=1e-4)
    np.testing.assert_allclose(probabilities(single, 1.3), special.softmax(logits / 1.3, axis=1), atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.2, 5.0), st.integers(0, 100))
def test_sharper_logits_have_a_temperature_higher_by_as_much(factor, seed):
    logits, labels = drawn(seed, 60, 3, 2.0)
    wide = logits.astype(np.float64)
    assert fitted_temperature(wide * factor, labels) == pytest.approx(
        factor * fitted_temperature(wide, labels), rel=1e-3
    )


def test_a_network_without_mistakes_is_not_made_certain():
    labels = np.arange(100) % 2
    logits = np.where(labels == 1, 3.0, -3.0)[:, None]
    temperature = fitted_temperature(logits, labels)
    certainty = probabilities(logits, temperature).max(axis=1)
    # of 100 examples and the one mistake that is added to two more
    np.testing.assert_allclose(certainty, 101 / 102, atol=1e-4)


def test_calibration_error_falls():
    logits, labels = drawn(3, 4000, 3, 4.0)
    before, after = fit_of(logits, labels, fitted_temperature(logits, labels)).ece
    assert after < before / 3
