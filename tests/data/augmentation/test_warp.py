"""The warp against SciPy in float64, and its invariants."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st

from vision_transfer.config.schema import AugmentConfig
from vision_transfer.data.augmentation.affine import affine_matrices
from vision_transfer.data.augmentation.sampling import AffineParameters
from vision_transfer.data.augmentation.warp import fill_mode, warp

FILLS = ("nearest", "reflect", "constant", "wrap")
SHAPE = (13, 18, 3)
NOISE = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)
# White noise differs by up to 255 from pixel to pixel; positions of an 18-pixel image are good to 2e-6 pixels.
TOLERANCE = 2e-3
# How near to a jump of the result (an edge of a fill) a position must be to be left out.
JUMP = 1e-4


@functools.cache
def compiled_warp(config):
    return jax.jit(lambda images, matrices: warp(images, matrices, config))


def warped(image, matrix, config):
    return np.asarray(compiled_warp(config)(jnp.asarray(image)[None], jnp.asarray(matrix, jnp.float32)[None])[0])


def scipy_warp(image, matrix, config):
    """SciPy's result, and where it is well-defined."""
    centre = (np.array(image.shape[:2]) - 1) / 2
    matrix = np.asarray(matrix, np.float32).astype(np.float64)
    offset = matrix[:, 2] + centre - matrix[:, :2] @ centre
    channels = [
        scipy.ndimage.affine_transform(
            image[..., channel].astype(np.float64),
            matrix[:, :2],
            offset,
            order=1,
            mode=fill_mode(config),
        )
        for channel in range(image.shape[-1])
    ]
    grid = np.stack(np.meshgrid(*map(np.arange, image.shape[:2]), indexing="ij"), -1)
    positions = grid @ matrix[:, :2].T + offset
    clear = np.ones(image.shape[:2], bool)
    for axis, size in enumerate(image.shape[:2]):
        position = positions[..., axis]
        if fill_mode(config) in ("constant", "wrap"):
            period = size - 1
            clear &= np.abs(position - period * np.round(position / period)) > JUMP
    return np.stack(channels, -1), clear


@pytest.mark.parametrize("fill", FILLS)
@settings(max_examples=60, deadline=None)
@given(
    linear=st.lists(st.floats(-1.5, 1.5, width=32), min_size=4, max_size=4),
    shift=st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=2),
)
def test_any_affine_map_agrees_with_scipy(fill, linear, shift):
    config = AugmentConfig("image_data_generator", fill=fill)
    matrix = np.column_stack([np.reshape(linear, (2, 2)), shift])
    expected, clear = scipy_warp(NOISE, matrix, config)
    result = warped(NOISE, matrix, config)
    np.testing.assert_allclose(result[clear], expected[clear], rtol=0, atol=TOLERANCE)


def test_large_image_agrees_with_scipy():
    image = np.random.default_rng(1).integers(0, 256, (224, 200, 1), dtype=np.uint8)
    config = AugmentConfig("image_data_generator", fill="reflect")
    matrix = [[0.9, 0.35, 11.3], [-0.31, 1.07, -6.6]]
    expected, _ = scipy_warp(image, matrix, config)
    np.testing.assert_allclose(warped(image, matrix, config), expected, rtol=0, atol=5e-3)


@pytest.mark.parametrize("preset", ["keras_layers", "image_data_generator"])
@pytest.mark.parametrize("fill", FILLS)
def test_exact_maps_are_exact(preset, fill):
    """Identity, flips and whole-pixel shifts move pixels without changing any; quarter turns to rounding."""
    config = AugmentConfig(preset, fill=fill)
    np.testing.assert_array_equal(warped(NOISE, [[1, 0, 0], [0, 1, 0]], config), NOISE)
    np.testing.assert_array_equal(warped(NOISE, [[-1, 0, 0], [0, 1, 0]], config), NOISE[::-1])
    np.testing.assert_array_equal(warped(NOISE, [[1, 0, 0], [0, -1, 0]], config), NOISE[:, ::-1])
    shifted = warped(NOISE, [[1, 0, 2], [0, 1, -3]], config)
    np.testing.assert_array_equal(shifted[:-2, 3:], NOISE[2:, :-3])


@pytest.mark.parametrize("quarters", [-1, 1, 2])
@pytest.mark.parametrize("size", [7, 150])
@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("preset", ["keras_layers", "image_data_generator"])
def test_quarter_turns_equal_rot90(preset, fill, size, quarters):
    image = np.random.default_rng(2).integers(0, 256, (size, size, 2), dtype=np.uint8)
    angle = jnp.asarray([quarters * np.pi / 2], jnp.float32)
    zero, one = jnp.zeros(1), jnp.ones(1)
    drawn = AffineParameters(zero > 1, zero > 1, angle, zero, zero, zero, one, one)
    matrix = affine_matrices(drawn, preset, size, size)[0]
    result = warped(image, matrix, AugmentConfig(preset, fill=fill))
    np.testing.assert_allclose(result, np.rot90(image, quarters), rtol=0, atol=5e-3)


@settings(max_examples=20, deadline=None)
@given(flips=st.tuples(st.booleans(), st.booleans()))
def test_flipping_twice_changes_nothing(flips):
    config = AugmentConfig("keras_layers", fill="constant")
    matrix = [[-1 if flips[0] else 1, 0, 0], [0, -1 if flips[1] else 1, 0]]
    np.testing.assert_array_equal(warped(warped(NOISE, matrix, config), matrix, config), NOISE)


def test_result_is_continuous_where_a_position_passes_an_integer():
    config = AugmentConfig("keras_layers")
    steps = np.linspace(-2e-4, 2e-4, 41)
    results = [warped(NOISE, [[1, 0, 2 + step], [0, 1, -3 - step]], config) for step in steps]
    assert np.abs(np.diff(results, axis=0)).max() < 2 * 255 * 1e-5 + 1e-3


def test_floats_and_bytes_give_the_same():
    config = AugmentConfig("keras_layers")
    matrix = [[0.8, 0.3, 1.1], [-0.2, 1.1, 0.4]]
    of_bytes, of_floats = warped(NOISE, matrix, config), warped(NOISE.astype(np.float32), matrix, config)
    assert of_bytes.dtype == of_floats.dtype == np.float32
    np.testing.assert_array_equal(of_bytes, of_floats)


def test_an_image_of_one_pixel_stays():
    image = np.full((1, 1, 3), 77, np.uint8)
    for fill in FILLS:
        for preset in ("keras_layers", "image_data_generator"):
            result = warped(image, [[1, 0, 0], [0, 1, 0]], AugmentConfig(preset, fill=fill))
            np.testing.assert_array_equal(result, image)
