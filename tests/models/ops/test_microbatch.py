"""Micro-batches on a CPU: sizes, equal results and gradients, and programs without loops elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import export

from vision_transfer.models.ops.microbatch import POSITIONS, map_on_cpu, micro_batch


@given(count=st.integers(1, 200), height=st.integers(1, 300), width=st.integers(1, 300))
def test_a_micro_batch_divides_the_batch_and_is_small(count, height, width):
    images = micro_batch((count, height, width, 3))
    assert count % images == 0
    assert images == 1 or images * height * width <= POSITIONS
    assert not any(count % more == 0 and more * height * width <= POSITIONS for more in range(images + 1, count + 1))


def _arrays():
    random = np.random.default_rng(0)
    shapes = ((4, 160, 160, 3), (3, 5))
    return tuple(random.standard_normal(shape, dtype=np.float32) for shape in shapes)


def _whole(images, kernel):
    return jnp.mean(jnp.tanh(images @ kernel), (1, 2))


def _in_parts(images, kernel):
    return map_on_cpu(lambda group: _whole(group, kernel), images)


def test_outputs_and_gradients_equal_those_of_the_whole_batch():
    arrays = _arrays()
    assert micro_batch(arrays[0].shape) == 1

    def loss(function, arrays):
        return jnp.sum(function(*arrays) ** 2)

    for got, wanted in zip(
        *(jax.jit(jax.grad(lambda a, f=f: loss(f, a)))(arrays) for f in (_in_parts, _whole)), strict=True
    ):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6 * np.abs(wanted).max())
    np.testing.assert_allclose(jax.jit(_in_parts)(*arrays), _whole(*arrays), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("platform", "loops"), [("cpu", True), ("cuda", False), ("tpu", False)])
def test_only_a_cpu_loops(platform, loops):
    text = export.export(jax.jit(_in_parts), platforms=[platform])(*_arrays()).mlir_module()
    assert ("stablehlo.while" in text) == loops


def test_a_symbolic_batch_is_taken_whole():
    images, kernel = _arrays()
    (batch,) = export.symbolic_shape("batch")
    symbolic = jax.ShapeDtypeStruct((batch, *images.shape[1:]), jnp.float32)
    program = export.export(jax.jit(_in_parts))(symbolic, kernel)
    np.testing.assert_allclose(program.call(images, kernel), _whole(images, kernel), rtol=1e-5, atol=1e-6)
