"""Max-pooling: values, and a gradient that goes to the first of equal maxima."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from vision_transfer.models.ops.convolution import convolution
from vision_transfer.models.ops.pooling import max_pool


def test_gradient_of_ties_goes_to_the_first():
    images = jnp.ones((1, 5, 4, 1))
    gradient = jax.grad(lambda images: jnp.sum(max_pool(images, 2)))(images)[0, :, :, 0]
    np.testing.assert_array_equal(gradient, [[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]])


@settings(max_examples=10, deadline=None, derandomize=True)
@given(height=st.integers(1, 12), width=st.integers(1, 12), size=st.integers(1, 3), seed=st.integers(0, 2**16))
def test_agrees_with_reduce_window_on_integers_with_many_ties(height, width, size, seed):
    height, width = max(height, size), max(width, size)
    images = jnp.asarray(np.random.default_rng(seed).integers(-2, 3, (2, height, width, 3)).astype(np.float32))
    window = (1, size, size, 1)

    def by_window(images):
        return lax.reduce_window(images, -jnp.inf, lax.max, window, window, "VALID")

    @jax.jit
    def both(images):
        functions = (partial(max_pool, size=size), by_window)
        outputs, pulls = zip(*(jax.vjp(function, images) for function in functions), strict=True)
        weights = jnp.arange(outputs[0].size, dtype=jnp.float32).reshape(outputs[0].shape)
        return outputs, [pull(weights)[0] for pull in pulls]

    outputs, gradients = both(images)
    np.testing.assert_array_equal(*outputs)
    np.testing.assert_array_equal(*gradients)


@pytest.mark.parametrize("implementation", ["winograd", "auto"])
def test_a_shut_relu_passes_no_gradient_to_a_pooled_convolution(implementation):
    images, kernel = jnp.ones((1, 10, 10, 16)), jnp.zeros((3, 3, 16, 16))

    def value(bias):
        return jnp.sum(
            convolution(images, kernel, bias, padding="same", relu=True, pool=True, implementation=implementation)
        )

    gradient = jax.jit(jax.grad(value))
    for bias, expected in ((-1.0, 0.0), (0.0, 0.0), (1.0, 25.0)):
        np.testing.assert_array_equal(gradient(jnp.full(16, bias)), np.full(16, expected))
