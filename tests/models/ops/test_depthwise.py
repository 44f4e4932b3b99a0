"""Depthwise convolution against float64: outputs and gradients over sizes, strides and paddings; transformations."""

import os
import subprocess
import sys
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax import export, lax

from vision_transfer.models.ops.depthwise import depthwise_convolution

FORWARD_TOLERANCE = 1e-6
GRADIENT_TOLERANCE = 2e-6


@dataclass(frozen=True)
class Case:
    """A layer of any shape."""

    shape: tuple[int, int, int, int]
    sizes: tuple[int, int]
    strides: tuple[int, int]
    padding: str | tuple[tuple[int, int], tuple[int, int]]

    def arrays(self):
        random = np.random.default_rng(0)
        images = random.standard_normal(self.shape, dtype=np.float32)
        return images, random.standard_normal((*self.sizes, self.shape[3], 1), dtype=np.float32)

    def run(self, images, kernel):
        return depthwise_convolution(images, kernel, strides=self.strides, padding=self.padding)

    def margins(self):
        """Zeros around the images. TensorFlow's documentation of "SAME": by the remainder of extent and stride."""
        if self.padding == "valid":
            return ((0, 0), (0, 0))
        if self.padding != "same":
            return self.padding
        margins = []
        for extent, size, stride in zip(self.shape[1:3], self.sizes, self.strides, strict=True):
            total = max(size - (stride if extent % stride == 0 else extent % stride), 0)
            margins.append((total // 2, total - total // 2))
        return tuple(margins)

    def float64(self, images, kernel):
        """The definition, window by window, in NumPy and float64."""
        padded = np.pad(images.astype(np.float64), ((0, 0), *self.margins(), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.sizes, (1, 2))
        windows = windows[:, :: self.strides[0], :: self.strides[1]]
        return np.einsum("bhwcij,ijc->bhwc", windows, kernel[..., 0].astype(np.float64))


@st.composite
def cases(draw):
    sizes = draw(st.sampled_from([(1, 1), (2, 2), (3, 3), (5, 5), (3, 5), (7, 1)]))
    strides = draw(st.sampled_from([(1, 1), (2, 2), (1, 2), (3, 3)]))
    zeros = st.integers(0, 4)
    explicit = st.tuples(st.tuples(zeros, zeros), st.tuples(zeros, zeros))
    padding = draw(st.one_of(st.just("valid"), st.just("same"), explicit))
    least = (1, 1) if padding == "same" else sizes
    height, width = (draw(st.integers(first, 40)) for first in least)
    channels = draw(st.sampled_from([1, 3, 16, 24, 160]))
    return Case((draw(st.integers(1, 3)), height, width, channels), sizes, strides, padding)


def _error(actual, expected):
    scale = np.abs(expected).max()
    return np.abs(np.asarray(actual, np.float64) - expected).max() / (scale if scale else 1)


def _assert_agrees(case):
    images, kernel = case.arrays()
    expected = case.float64(images, kernel)
    weights = np.random.default_rng(1).standard_normal(expected.shape).astype(np.float32)

    def both(images, kernel):
        outputs, pull = jax.vjp(case.run, images, kernel)
        return outputs, pull(weights)

    outputs, gradients = jax.jit(both)(images, kernel)
    assert outputs.shape == expected.shape
    assert _error(outputs, expected) <= FORWARD_TOLERANCE

    def by_xla(images, kernel):
        return lax.conv_general_dilated(
            images,
            kernel.swapaxes(2, 3),
            case.strides,
            case.margins(),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=images.shape[3],
        )

    with jax.enable_x64(True):
        wide = (array.astype(np.float64) for array in (images, kernel, weights))
        wanted = jax.jit(lambda images, kernel, weights: jax.vjp(by_xla, images, kernel)[1](weights))(*wide)
        for name, got, want in zip(("images", "kernel"), gradients, wanted, strict=True):
            assert _error(got, np.asarray(want)) <= GRADIENT_TOLERANCE, name


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(case=cases())
def test_outputs_and_gradients_agree_with_float64(case):
    _assert_agrees(case)


@pytest.mark.parametrize(
    "case",
    [
        Case((1, 112, 112, 16), (3, 3), (2, 2), "same"),
        Case((1, 113, 57, 16), (5, 5), (2, 2), "same"),
        Case((2, 60, 60, 24), (5, 5), (1, 1), "same"),
        Case((1, 56, 56, 144), (3, 3), (2, 2), ((1, 1), (1, 1))),
        Case((4, 7, 7, 1152), (5, 5), (1, 1), "same"),
        Case((3, 2, 3, 20), (5, 5), (2, 2), "same"),
    ],
    ids=str,
)
def test_layers_of_known_networks_agree_with_float64(case):
    _assert_agrees(case)


def test_gradients_agree_with_finite_differences():
    case = Case((2, 11, 14, 32), (5, 5), (2, 2), "same")
    images, kernel = case.arrays()
    random = np.random.default_rng(2)
    weights = random.standard_normal((2, 6, 7, 32)).astype(np.float32)
    by_images, by_kernel = jax.jit(jax.grad(lambda *arrays: jnp.sum(case.run(*arrays) * weights), (0, 1)))(
        images, kernel
    )
    along_images, along_kernel = random.standard_normal(images.shape), random.standard_normal(kernel.shape)

    def exact(step):
        return np.sum(case.float64(images + step * along_images, kernel + step * along_kernel) * weights)

    difference = (exact(1e-4) - exact(-1e-4)) / 2e-4
    directional = np.vdot(by_images, along_images) + np.vdot(by_kernel, along_kernel)
    assert abs(directional - difference) <= 1e-5 * abs(difference)


LAYER = Case((4, 15, 15, 32), (3, 3), (2, 2), "same")


def _loss(images, kernel):
    return jnp.sum(LAYER.run(images, kernel) ** 2)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_other_platforms_get_grouped_convolutions(platform):
    program = export.export(jax.jit(jax.value_and_grad(_loss, (0, 1))), platforms=[platform])(*LAYER.arrays())
    text = program.mlir_module()
    assert text.count("stablehlo.convolution") == 3
    assert "feature_group_count = 32" in text
    assert "stablehlo.while" not in text


def test_a_cpu_gets_products():
    text = export.export(jax.jit(jax.value_and_grad(_loss, (0, 1))), platforms=["cpu"])(*LAYER.arrays()).mlir_module()
    assert "stablehlo.convolution" not in text


def test_exports_with_a_symbolic_batch_for_all_platforms():
    images, kernel = LAYER.arrays()
    (batch,) = export.symbolic_shape("batch")
    symbolic = jax.ShapeDtypeStruct((batch, *images.shape[1:]), jnp.float32)
    program = export.export(jax.jit(LAYER.run), platforms=["cpu", "cuda", "tpu"])(symbolic, kernel)
    for count in (1, 4):
        assert _error(program.call(images[:count], kernel), LAYER.float64(images[:count], kernel)) <= FORWARD_TOLERANCE


def test_bfloat16_sums_in_float32_and_rounds_once():
    images, kernel = (jnp.asarray(array, jnp.bfloat16) for array in LAYER.arrays())

    def both(images, kernel):
        outputs, pull = jax.vjp(LAYER.run, images, kernel)
        return outputs, pull(jnp.ones_like(outputs))

    outputs, gradients = jax.jit(both)(images, kernel)
    assert {array.dtype for array in (outputs, *gradients)} == {jnp.dtype(jnp.bfloat16)}
    exact = LAYER.float64(*(np.asarray(array, np.float64) for array in (images, kernel)))
    # Half of the spacing of bfloat16's eight bits.
    np.testing.assert_allclose(np.asarray(outputs, np.float64), exact, rtol=2**-8, atol=1e-5)


def test_an_unasked_gradient_is_not_computed():
    arrays = LAYER.arrays()

    def loops(argnums):
        return jax.jit(jax.grad(_loss, argnums)).lower(*arrays).compile().as_text().count(" while(")

    assert loops(0) == 0
    assert loops(1) > 0


def test_works_inside_vmap_remat_and_loops():
    images, kernel = LAYER.arrays()
    expected = jax.jit(jax.grad(_loss, (0, 1)))(images, kernel)

    def looped(images, kernel, times):
        def step(_, total):
            return jax.tree.map(jnp.add, total, jax.grad(jax.checkpoint(_loss), (0, 1))(images, kernel))

        return lax.fori_loop(0, times, step, (jnp.zeros_like(images), jnp.zeros_like(kernel)))

    for got, wanted in zip(jax.jit(looped)(images, kernel, 2), expected, strict=True):
        assert _error(got, 2 * np.asarray(wanted)) <= GRADIENT_TOLERANCE
    stacked = np.stack([images, -images]), np.stack([kernel, kernel])
    for got, wanted, sign in zip(jax.jit(jax.vmap(jax.grad(_loss, (0, 1))))(*stacked), expected, (-1, 1), strict=True):
        assert _error(got[0], np.asarray(wanted)) <= GRADIENT_TOLERANCE
        assert _error(got[1], sign * np.asarray(wanted)) <= GRADIENT_TOLERANCE


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, PartitionSpec as P
from vision_transfer.models.ops.depthwise import depthwise_convolution
assert len(jax.devices()) == 2
mesh = Mesh(np.array(jax.devices()), ("batch",))
random = np.random.default_rng(0)
images, kernel = (random.standard_normal(shape, dtype=np.float32) for shape in ((4, 15, 15, 32), (3, 3, 32, 1)))
def loss(images, kernel):
    return jnp.sum(depthwise_convolution(images, kernel, strides=(2, 2), padding="same") ** 2)
def sharded(images, kernel):
    return jax.lax.psum(jax.grad(loss, 1)(images, kernel), "batch")
split = jax.shard_map(sharded, mesh=mesh, in_specs=(P("batch"), P()), out_specs=P(), check_vma=False)
whole = jax.jit(jax.grad(loss, 1))(images, kernel)
np.testing.assert_allclose(jax.jit(split)(images, kernel), whole, rtol=1e-4, atol=1e-4)
by_compiler = jax.jit(jax.grad(loss, 1))(jax.device_put(images, jax.NamedSharding(mesh, P("batch"))), kernel)
np.testing.assert_allclose(by_compiler, whole, rtol=1e-4, atol=1e-4)
"""


def test_works_with_the_batch_on_two_devices():
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    result = subprocess.run([sys.executable, "-c", SHARDED], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
