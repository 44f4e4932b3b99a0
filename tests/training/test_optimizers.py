"""Optimizers against Keras's own paths; learning rates against their formulas."""

import jax.numpy as jnp
import numpy as np
import pytest

from vision_transfer.training.optimizers import OptimizerSpec, descent, learning_rates


def path_of(spec, numbers, rates):
    """The weights after each step, from given gradients."""
    optimizer = descent(spec)
    weights = {"layer": {"kernel": jnp.asarray(numbers["w0"])}}
    state, path = optimizer.init(weights), []
    for gradient, rate in zip(numbers["grads"], rates, strict=True):
        change, state = optimizer.update(
            {"layer": {"kernel": jnp.asarray(gradient)}}, state, weights, rate=jnp.float32(rate)
        )
        weights = {"layer": {"kernel": weights["layer"]["kernel"] - change["layer"]["kernel"]}}
        path.append(weights["layer"]["kernel"])
    return np.stack(path)


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
    path = path_of(OptimizerSpec(name), numbers, [rate] * len(numbers["grads"]))
    # The first three start at 0 and have gradients of 1e-8, 1e-6 and 1e-4: these show where epsilon is.
    np.testing.assert_allclose(path[:, :3], numbers[case][:, :3], rtol=1e-4)
    np.testing.assert_allclose(path, numbers[case], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("case", "spec"),
    [
        ("sgd", OptimizerSpec("sgd", momentum=0.9)),
        ("rmsprop", OptimizerSpec("rmsprop", momentum=0.9)),
        ("sgd_decayed", OptimizerSpec("sgd", momentum=0.9, weight_decay=0.1)),
    ],
)
def test_momentum_is_keras_s_while_the_rate_changes(reference, case, spec):
    numbers = reference("momentum")
    np.testing.assert_allclose(path_of(spec, numbers, numbers["rates"]), numbers[case], rtol=1e-5, atol=1e-6)


def test_momentum_gathered_at_a_high_rate_outlives_it():
    optimizer = descent(OptimizerSpec("sgd", momentum=0.5))
    weights = {"layer": {"bias": jnp.zeros(1)}}
    state, changes = optimizer.init(weights), []
    for rate in (8.0, 0.0, 0.0):
        change, state = optimizer.update({"layer": {"bias": jnp.ones(1)}}, state, weights, rate=jnp.float32(rate))
        changes.append(float(change["layer"]["bias"][0]))
    assert changes == [8.0, 4.0, 2.0]


def test_momentum_is_ignored_by_adam():
    weights = {"layer": {"bias": jnp.ones(3)}}
    states = [descent(OptimizerSpec("adam", momentum=momentum)).init(weights) for momentum in (0.0, 0.9)]
    assert str(states[0]) == str(states[1])


def test_decay_is_of_kernels_only():
    optimizer = descent(OptimizerSpec("sgd", weight_decay=0.1))
    names = ("kernel", "depthwise_kernel", "pointwise_kernel", "bias", "scale")
    weights = {"layer": {name: jnp.full(2, 5.0) for name in names}}
    zeros = {"layer": {name: jnp.zeros(2) for name in weights["layer"]}}
    change, _ = optimizer.update(zeros, optimizer.init(weights), weights, rate=jnp.float32(0.2))
    assert {name: float(value[0]) for name, value in change["layer"].items()} == pytest.approx(
        {name: 0.1 if name.endswith("kernel") else 0.0 for name in names}
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
