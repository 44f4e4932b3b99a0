"""The convolution against float64: outputs and gradients over odd sizes, both paddings, with and without epilogue."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax import lax

from vision_transfer.models.ops.convolution import convolution, prepare_kernel, uses_winograd
from vision_transfer.models.ops.winograd_transforms import POINTS, transforms

FORWARD_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-3
# By input channels in `test_gradients_agree_with_float64`: what "auto" takes, and Winograd also where it would not.
METHODS = {3: "auto", 16: "winograd", 64: "auto"}


EXTENTS = st.one_of(st.integers(1, 40), st.integers(41, 224))
# Of a generated batch at most, so that float64 takes no time.
MOST_POSITIONS = 60_000


def _batch_that_fits(batch, height, width):
    return min(batch, max(1, MOST_POSITIONS // (height * width)))


def _arrays(batch, height, width, inputs, outputs, size=3, seed=0):
    """Images as after a ReLU, He kernels, small biases, all float32."""
    random = np.random.default_rng(seed)
    images = np.maximum(random.standard_normal((batch, height, width, inputs), dtype=np.float32), 0)
    scale = np.float32(np.sqrt(2 / (size * size * inputs)))
    kernel = random.standard_normal((size, size, inputs, outputs), dtype=np.float32) * scale
    return images, kernel, random.standard_normal(outputs, dtype=np.float32) * np.float32(0.1)


def _float64(images, kernel, bias, padding, relu, pool):
    """The definition, in NumPy and float64."""
    images, kernel = images.astype(np.float64), kernel.astype(np.float64)
    rows, columns = kernel.shape[:2]
    if padding == "same":
        margins = [((size - 1) // 2, size // 2) for size in (rows, columns)]
        images = np.pad(images, ((0, 0), *margins, (0, 0)))
    height, width = images.shape[1] - rows + 1, images.shape[2] - columns + 1
    outputs = sum(
        images[:, row : row + height, column : column + width] @ kernel[row, column]
        for row in range(rows)
        for column in range(columns)
    )
    outputs = outputs + bias
    outputs = np.maximum(outputs, 0) if relu else outputs
    if pool:
        cut = outputs[:, : height // 2 * 2, : width // 2 * 2]
        outputs = np.max([cut[:, row::2, column::2] for row in range(2) for column in range(2)], axis=0)
    return outputs


def _error(actual, expected):
    scale = np.abs(expected).max()
    return np.abs(np.asarray(actual, np.float64) - expected).max() / (scale if scale else 1)


@pytest.mark.parametrize("tile", POINTS)
def test_transforms_compute_a_convolution_exactly(tile):
    random = np.random.default_rng(tile)
    signal, taps = random.standard_normal(tile + 2), random.standard_normal(3)
    matrices = transforms(tile)
    computed = matrices.output @ ((matrices.kernel @ taps) * (matrices.image @ signal))
    np.testing.assert_allclose(computed, np.correlate(signal, taps, "valid"), rtol=1e-10, atol=1e-10)


@dataclass(frozen=True)
class Case:
    """A layer of any shape, and how it is computed."""

    arrays: tuple[np.ndarray, np.ndarray, np.ndarray]
    padding: str
    relu: bool
    pool: bool
    implementation: str

    def run(self, images, kernel, bias):
        return convolution(
            images,
            kernel,
            bias,
            padding=self.padding,
            relu=self.relu,
            pool=self.pool,
            implementation=self.implementation,
        )


@st.composite
def cases(draw):
    padding, pool = draw(st.sampled_from(["same", "valid"])), draw(st.booleans())
    least = (1 if padding == "same" else 3) + int(pool)
    height, width = max(draw(EXTENTS), least), max(draw(EXTENTS), least)
    batch = _batch_that_fits(draw(st.integers(1, 64)), height, width)
    inputs, outputs = draw(st.sampled_from([(3, 8), (16, 16), (17, 33)]))
    arrays = _arrays(batch, height, width, inputs, outputs)
    return Case(arrays, padding, draw(st.booleans()), pool, draw(st.sampled_from(["auto", "winograd"])))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(case=cases())
def test_outputs_agree_with_float64(case):
    actual = jax.jit(case.run)(*case.arrays)
    expected = _float64(*case.arrays, case.padding, case.relu, case.pool)
    assert actual.shape == expected.shape
    assert _error(actual, expected) <= FORWARD_TOLERANCE


@pytest.mark.parametrize(
    ("batch", "extent", "inputs", "outputs", "padding", "pool"),
    [
        (1, 224, 16, 16, "same", True),
        (2, 180, 16, 24, "same", True),
        (3, 148, 16, 16, "valid", False),
        (64, 11, 64, 64, "same", False),
        (7, 45, 32, 16, "same", True),
        (16, 9, 64, 64, "same", True),
        (5, 22, 512, 64, "same", False),
    ],
)
def test_large_and_deep_layers_agree_with_float64(batch, extent, inputs, outputs, padding, pool):
    arrays = _arrays(batch, extent, extent, inputs, outputs)
    assert uses_winograd(arrays[0].shape, arrays[1].shape, padding, "cpu")
    actual = jax.jit(lambda *arrays: convolution(*arrays, padding=padding, relu=True, pool=pool))(*arrays)
    assert _error(actual, _float64(*arrays, padding, True, pool)) <= FORWARD_TOLERANCE


@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("implementation", ["auto", "lax"])
def test_a_relu_passes_no_gradient_at_zero(implementation, pool):
    """As in Keras and PyTorch: fresh biases on a black background are exactly there."""
    images, kernel, bias = jnp.zeros((1, 8, 8, 16)), jnp.ones((3, 3, 16, 16)), jnp.zeros(16)

    def total(bias):
        return jnp.sum(
            convolution(images, kernel, bias, padding="same", relu=True, pool=pool, implementation=implementation)
        )

    np.testing.assert_array_equal(jax.grad(total)(bias), 0)


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_other_kernel_sizes_agree_with_float64(size, padding):
    # 5 × 5 outputs of `same` and fewer of `valid` fall on both sides of what a product of patches takes.
    arrays = _arrays(2, 5, 6, 8, 4, size)

    def run(*arrays):
        return convolution(*arrays, padding=padding, relu=True, pool=False)

    assert _error(jax.jit(run)(*arrays), _float64(*arrays, padding, True, False)) <= FORWARD_TOLERANCE
    _assert_gradients_agree(run, arrays, padding, relu=True, pool=False)


def _assert_gradients_agree(run, arrays, padding, relu, pool):
    """All three gradients of a random linear function of the outputs against XLA's own convolution in float64."""
    shape = jax.eval_shape(run, *arrays).shape
    weights = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    actual = jax.jit(jax.grad(lambda arrays: jnp.sum(run(*arrays) * weights)))(arrays)

    def by_definition(arrays):
        images, kernel, bias = arrays
        outputs = bias + lax.conv_general_dilated(
            images, kernel, (1, 1), padding.upper(), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        outputs = jax.nn.relu(outputs) if relu else outputs
        if pool:
            window = (1, 2, 2, 1)
            outputs = lax.reduce_window(outputs, -jnp.inf, lax.max, window, window, "VALID")
        return jnp.sum(outputs * weights)

    with jax.enable_x64(True):
        expected = jax.jit(jax.grad(by_definition))(tuple(array.astype(np.float64) for array in arrays))
    for name, got, wanted in zip(("images", "kernel", "bias"), actual, expected, strict=True):
        assert _error(got, np.asarray(wanted)) <= GRADIENT_TOLERANCE, name


@pytest.mark.parametrize(
    ("shape", "outputs", "padding", "relu", "pool"),
    [
        ((1, 60, 70, 16), 16, "same", True, True),
        ((1, 60, 70, 16), 16, "valid", False, False),
        ((2, 9, 7, 16), 32, "same", False, True),
        ((2, 9, 7, 16), 32, "valid", True, False),
        ((6, 23, 12, 16), 16, "same", True, False),
        ((6, 23, 12, 16), 16, "valid", False, True),
        ((5, 45, 45, 16), 16, "same", False, False),
        ((5, 45, 45, 16), 16, "valid", True, True),
        ((4, 33, 33, 3), 16, "same", True, True),
        ((4, 33, 33, 3), 16, "valid", True, False),
        ((3, 4, 4, 64), 16, "same", True, True),
        ((3, 4, 4, 64), 16, "valid", True, False),
        ((2, 22, 23, 64), 64, "same", True, True),
        ((2, 22, 23, 64), 64, "valid", True, False),
        ((3, 1, 1, 16), 16, "same", True, False),
        ((1, 224, 224, 16), 16, "same", True, False),
        ((64, 11, 11, 64), 64, "valid", True, False),
    ],
)
def test_gradients_agree_with_float64(shape, outputs, padding, relu, pool):
    arrays = _arrays(*shape, outputs)

    def run(*arrays):
        return convolution(*arrays, padding=padding, relu=relu, pool=pool, implementation=METHODS[shape[-1]])

    _assert_gradients_agree(run, arrays, padding, relu, pool)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(case=cases())
def test_gradients_of_any_shape_agree_with_float64(case):
    _assert_gradients_agree(case.run, case.arrays, case.padding, case.relu, case.pool)


def test_gradients_agree_with_finite_differences():
    images, kernel, bias = _arrays(2, 13, 11, 16, 16)
    weights = np.random.default_rng(2).standard_normal((2, 13, 11, 16)).astype(np.float32)

    def value(images, kernel):
        return jnp.sum(
            convolution(images, kernel, bias, padding="same", relu=False, pool=False, implementation="winograd")
            * weights
        )

    by_images, by_kernel = jax.jit(jax.grad(value, (0, 1)))(images, kernel)
    random = np.random.default_rng(3)
    along_images = random.standard_normal(images.shape)
    along_kernel = random.standard_normal(kernel.shape)

    def exact(images, kernel):
        return np.sum(_float64(images, kernel, bias, "same", False, False) * weights)

    step = 1e-4
    difference = (
        exact(images + step * along_images, kernel + step * along_kernel)
        - exact(images - step * along_images, kernel - step * along_kernel)
    ) / (2 * step)
    directional = np.vdot(by_images, along_images) + np.vdot(by_kernel, along_kernel)
    assert abs(directional - difference) <= GRADIENT_TOLERANCE * abs(difference)


def test_prepared_kernels_change_nothing():
    images, kernel, bias = _arrays(2, 45, 45, 16, 16)
    prepared = jax.jit(lambda kernel: prepare_kernel(kernel, images.shape, "same"))(kernel)

    def loss(images, kernel, prepared):
        outputs = convolution(images, kernel, bias, padding="same", relu=True, pool=True, prepared=prepared)
        return jnp.sum(outputs**2)

    plain, fast = (jax.jit(jax.value_and_grad(loss))(images, kernel, given) for given in (None, prepared))
    for got, wanted in zip(fast, plain, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-6 * np.abs(wanted).max())
