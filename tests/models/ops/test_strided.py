"""Convolution of any stride and padding against float64: outputs and gradients; lowered programs."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax import export, lax

from vision_transfer.models.ops.strided import strided_convolution

FORWARD_TOLERANCE = 3e-6
GRADIENT_TOLERANCE = 5e-6


@dataclass(frozen=True)
class Case:
    """A layer of any shape."""

    shape: tuple[int, int, int, int]
    outputs: int
    size: int
    strides: tuple[int, int]
    padding: str | tuple[tuple[int, int], tuple[int, int]]

    def arrays(self):
        random = np.random.default_rng(0)
        kernel_shape = (self.size, self.size, self.shape[3], self.outputs)
        return tuple(random.standard_normal(shape, dtype=np.float32) for shape in (self.shape, kernel_shape))

    def run(self, images, kernel):
        return strided_convolution(images, kernel, strides=self.strides, padding=self.padding)

    def by_xla(self, images, kernel):
        """XLA's convolution with XLA's own rule for "same"."""
        padding = self.padding.upper() if isinstance(self.padding, str) else self.padding
        return lax.conv_general_dilated(
            images, kernel, self.strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )


@st.composite
def cases(draw):
    size, inputs = draw(st.sampled_from([(1, 5), (1, 40), (2, 3), (3, 3), (3, 5), (3, 20), (5, 3), (7, 3)]))
    strides = draw(st.sampled_from([(1, 1), (2, 2), (1, 2), (3, 3)]))
    zeros = st.integers(0, 3)
    explicit = st.tuples(st.tuples(zeros, zeros), st.tuples(zeros, zeros))
    padding = draw(st.one_of(st.just("valid"), st.just("same"), explicit))
    least = 1 if padding == "same" else size
    height, width = draw(st.integers(least, 30)), draw(st.integers(least, 30))
    return Case(
        (draw(st.integers(1, 3)), height, width, inputs), draw(st.sampled_from([8, 17])), size, strides, padding
    )


def _error(actual, expected):
    scale = np.abs(expected).max()
    return np.abs(np.asarray(actual, np.float64) - expected).max() / (scale if scale else 1)


def _assert_agrees(case):
    images, kernel = case.arrays()
    weights = np.random.default_rng(1).standard_normal(jax.eval_shape(case.by_xla, images, kernel).shape, np.float32)

    def both(function, images, kernel, weights):
        outputs, pull = jax.vjp(function, images, kernel)
        return outputs, pull(weights)

    with jax.enable_x64(True):
        wide = (array.astype(np.float64) for array in (images, kernel, weights))
        wanted, wanted_gradients = jax.tree.map(np.asarray, jax.jit(partial(both, case.by_xla))(*wide))
    outputs, gradients = jax.jit(partial(both, case.run))(images, kernel, weights)
    assert outputs.shape == wanted.shape
    assert _error(outputs, wanted) <= FORWARD_TOLERANCE
    for name, got, want in zip(("images", "kernel"), gradients, wanted_gradients, strict=True):
        assert _error(got, want) <= GRADIENT_TOLERANCE, name


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(case=cases())
def test_outputs_and_gradients_agree_with_float64(case):
    _assert_agrees(case)


@pytest.mark.parametrize(
    "case",
    [
        Case((2, 65, 64, 3), 32, 3, (2, 2), "same"),
        Case((1, 64, 64, 3), 16, 7, (2, 2), ((3, 3), (3, 3))),
        Case((1, 29, 29, 32), 32, 3, (2, 2), "valid"),
        Case((2, 15, 15, 64), 32, 1, (2, 2), "valid"),
        Case((2, 14, 14, 96), 24, 1, (1, 1), "same"),
    ],
    ids=str,
)
def test_layers_of_known_networks_agree_with_float64(case):
    _assert_agrees(case)


@pytest.mark.parametrize("size", [1, 3])
def test_other_platforms_get_plain_convolutions(size):
    case = Case((2, 15, 15, 3), 16, size, (2, 2), "same")

    def loss(images, kernel):
        return jnp.sum(case.run(images, kernel) ** 2)

    program = export.export(jax.jit(jax.value_and_grad(loss, (0, 1))), platforms=["cuda"])(*case.arrays())
    assert program.mlir_module().count("stablehlo.convolution") == 3
    assert "stablehlo.dot_general" not in program.mlir_module()


@pytest.mark.parametrize("size", [1, 3])
def test_exports_with_a_symbolic_batch_for_all_platforms(size):
    case = Case((3, 15, 15, 3), 16, size, (2, 2), "same")
    images, kernel = case.arrays()
    (batch,) = export.symbolic_shape("batch")
    symbolic = jax.ShapeDtypeStruct((batch, *images.shape[1:]), jnp.float32)
    program = export.export(jax.jit(case.run), platforms=["cpu", "cuda", "tpu"])(symbolic, kernel)
    assert _error(program.call(images, kernel), np.asarray(case.by_xla(images, kernel))) <= FORWARD_TOLERANCE


def test_works_inside_vmap_and_remat():
    case = Case((2, 15, 15, 3), 16, 3, (2, 2), "same")
    images, kernel = case.arrays()

    def gradient(images, kernel):
        return jax.grad(lambda *arrays: jnp.sum(jax.checkpoint(case.run)(*arrays) ** 2), (0, 1))(images, kernel)

    expected = jax.jit(gradient)(images, kernel)
    mapped = jax.jit(jax.vmap(gradient))(np.stack([images, -images]), np.stack([kernel, kernel]))
    for got, wanted, sign in zip(mapped, expected, (-1, 1), strict=True):
        assert _error(got[1], sign * np.asarray(wanted)) <= GRADIENT_TOLERANCE
