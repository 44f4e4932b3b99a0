"""Optimizers against Keras's own paths; learning rates against their formulas."""

import jax.numpy as jnp
import numpy as np
import pytest

from vision_transfer.train.optimizers import OptimizerSpec, descent_direction, learning_rates


@pytest.mark.parametrize(
    ("case", "name", "rate"),
    [
        ("rmsprop_1e-3", "rmsprop", 1e-3),
        ("rmsprop_1e-4", "rmsprop", 1e-4),
        ("rmsprop_1e-5", "rmsprop", 1e-5),
        ("adam_1e-4", "adam", 1e-4),
    ],
)
def test_paths_are_keras_s(reference, case, name, rate):
    numbers = reference("optimizers")
    direction = descent_direction(OptimizerSpec(name))
    weights = {"layer": {"kernel": jnp.asarray(numbers["w0"])}}
    state, path = direction.init(weights), []
    for gradient in numbers["grads"]:
        way, state = direction.update({"layer": {"kernel": jnp.asarray(gradient)}}, state, weights)
        weights = {"layer": {"kernel": weights["layer"]["kernel"] - rate * way["layer"]["kernel"]}}
        path.append(weights["layer"]["kernel"])
    # The first three start at 0 and have gradients of 1e-8, 1e-6 and 1e-4: these show where epsilon is.
    np.testing.assert_allclose(np.stack(path)[:, :3], numbers[case][:, :3], rtol=1e-4)
    np.testing.assert_allclose(np.stack(path), numbers[case], rtol=1e-4, atol=1e-6)


def test_momentum_is_ignored_by_adam():
    weights = {"layer": {"bias": jnp.ones(3)}}
    states = [descent_direction(OptimizerSpec("adam", momentum=momentum)).init(weights) for momentum in (0.0, 0.9)]
    assert str(states[0]) == str(states[1])


def test_decay_is_of_kernels_only():
    direction = descent_direction(OptimizerSpec("sgd", weight_decay=0.1))
    weights = {"layer": {"kernel": jnp.full(2, 5.0), "bias": jnp.full(2, 5.0), "scale": jnp.full(2, 5.0)}}
    zeros = {"layer": {name: jnp.zeros(2) for name in weights["layer"]}}
    way, _ = direction.update(zeros, direction.init(weights), weights)
    assert {name: float(value[0]) for name, value in way["layer"].items()} == pytest.approx(
        {"kernel": 0.5, "bias": 0.0, "scale": 0.0}
    )


def test_constant_rates():
    rates = learning_rates(0.1, "constant", 0, 5)
    assert rates.dtype == np.float32
    np.testing.assert_array_equal(rates, np.float32([0.1] * 5))


def test_warm_up_rises_linearly_to_the_rate():
    np.testing.assert_allclose(learning_rates(0.8, "constant", 4, 6), [0.2, 0.4, 0.6, 0.8, 0.8, 0.8], rtol=1e-6)


def test_cosine_falls_from_the_rate_towards_zero():
    rates = learning_rates(2.0, "cosine", 0, 4)
    np.testing.assert_allclose(rates, 1 + np.cos(np.pi * np.arange(4) / 4), rtol=1e-6)


def test_cosine_starts_behind_the_warm_up():
    rates = learning_rates(1.0, "cosine", 2, 6)
    np.testing.assert_allclose(rates[:2], [0.5, 1.0])
    np.testing.assert_allclose(rates[2:], 0.5 * (1 + np.cos(np.pi * np.arange(4) / 4)), rtol=1e-6)


def test_a_warm_up_longer_than_the_stage_is_no_error():
    np.testing.assert_allclose(learning_rates(1.0, "cosine", 10, 3), [0.1, 0.2, 0.3], rtol=1e-6)
