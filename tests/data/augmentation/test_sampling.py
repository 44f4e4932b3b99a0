"""The laws that parameters are drawn by, and what draws depend on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from vision_transfer.config.schema import AugmentConfig
from vision_transfer.data.augmentation.affine import affine_matrices
from vision_transfer.data.augmentation.sampling import CROP_RATIO, draw_parameters
from vision_transfer.data.augmentation.warp import warp

KEY = jax.random.key(7)
EXAMPLES = 4000
# Seeds are fixed: a p-value below this is a wrong law, not bad luck.
SMALLEST_P = 1e-3
GENERATOR = AugmentConfig(
    "image_data_generator",
    flip="horizontal_and_vertical",
    rotation=40,
    height_shift=0.2,
    width_shift=0.1,
    shear=20,
    zoom=0.2,
    brightness=0.3,
    contrast=1.5,
    saturation=0.5,
)
LAYERS = AugmentConfig(
    "keras_layers",
    flip="horizontal",
    rotation=0.1,
    height_shift=0.2,
    width_shift=0.1,
    shear=0.3,
    zoom=0.2,
    crop_scale=(0.3, 1.0),
)


draw_batch = jax.jit(draw_parameters, static_argnames=("config", "height", "width"))
matrices_of = jax.jit(affine_matrices, static_argnums=(1, 2, 3))


def ids(count, start=0):
    return jnp.arange(start, start + count, dtype=jnp.uint32)


def draw(config, examples=EXAMPLES, epoch=3, height=100, width=160):
    return draw_batch(config, KEY, epoch, ids(examples), height, width)


def assert_uniform(values, low, high):
    values = np.asarray(values)
    assert low <= values.min() and values.max() <= high
    assert scipy.stats.kstest(values, scipy.stats.uniform(low, high - low).cdf).pvalue > SMALLEST_P


def test_laws_of_image_data_generator():
    affine, colours = draw(GENERATOR)
    assert_uniform(np.rad2deg(affine.angle), -40.001, 40.001)
    assert_uniform(affine.shift_rows, -20, 20)
    assert_uniform(affine.shift_columns, -16, 16)
    assert_uniform(np.rad2deg(affine.shear), -20.001, 20.001)
    assert_uniform(affine.zoom_rows, 0.8, 1.2)
    assert_uniform(affine.zoom_columns, 0.8, 1.2)
    for flips in (affine.flip_horizontal, affine.flip_vertical):
        assert scipy.stats.binomtest(int(flips.sum()), EXAMPLES, 0.5).pvalue > SMALLEST_P
    assert_uniform(colours.brightness, 0.7, 1.3)
    assert_uniform(colours.contrast, 0, 2.5)
    assert_uniform(colours.saturation, 0.5, 1.5)


def test_laws_of_keras_layers():
    affine, _ = draw(LAYERS)
    assert_uniform(np.asarray(affine.angle) / (2 * np.pi), -0.100001, 0.100001)
    assert_uniform(affine.shift_rows, -20, 20)
    assert_uniform(affine.shear, -0.3, 0.3)
    assert_uniform(affine.zoom_rows, 0.8, 1.2)
    np.testing.assert_array_equal(affine.zoom_rows, affine.zoom_columns)
    assert not affine.flip_vertical.any()


def test_draws_are_independent_of_each_other_and_between_epochs():
    columns = []
    for epoch in (0, 1):
        affine, colours = draw(GENERATOR, epoch=epoch)
        columns += [np.asarray(values, np.float64) for values in (*affine[:8], *colours)]
    columns.append(np.roll(columns[2], 1))
    correlations = np.corrcoef(columns) - np.eye(len(columns))
    # A correlation of independent columns has a standard deviation of 1/sqrt(EXAMPLES).
    assert np.abs(correlations).max() < 4.5 / np.sqrt(EXAMPLES)


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(12)), cut=st.sampled_from([1, 5]))
def test_draws_do_not_depend_on_the_batch(order, cut):
    order = np.asarray(order)
    examples = np.asarray([5, 0, 2**32 - 1, 17, 3, 99, 1234567, 8, 2**31, 42, 7, 6], np.uint32)
    config = AugmentConfig("keras_layers", "horizontal", 0.1, 0.2, 0.1, 0.3, 0.2, crop_scale=(0.3, 1.0))
    whole = draw_batch(config, KEY, 4, jnp.asarray(examples), 50, 60)
    parts = [draw_batch(config, KEY, 4, jnp.asarray(part), 50, 60) for part in np.split(examples[order], [cut])]
    joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    jax.tree.map(
        lambda expected, found: np.testing.assert_allclose(found, np.asarray(expected)[order], rtol=1e-6, atol=1e-6),
        whole,
        joined,
    )


def test_another_seed_epoch_or_example_gives_other_draws():
    angle = draw(GENERATOR, 64)[0].angle
    others = [
        draw_batch(GENERATOR, jax.random.key(8), 3, ids(64), 100, 160)[0].angle,
        draw_batch(GENERATOR, KEY, 4, ids(64), 100, 160)[0].angle,
        draw_batch(GENERATOR, KEY, 3, ids(64, start=64), 100, 160)[0].angle,
    ]
    for other in others:
        assert not np.any(np.asarray(angle) == np.asarray(other))
    np.testing.assert_array_equal(angle, draw(GENERATOR, 64)[0].angle)


def test_switching_an_operation_on_leaves_the_other_draws():
    plain = draw(AugmentConfig("image_data_generator", rotation=40), 64)[0]
    rich = draw(GENERATOR, 64)[0]
    cropped = draw(AugmentConfig("image_data_generator", rotation=40, crop_scale=(0.5, 1.0)), 64)[0]
    np.testing.assert_array_equal(plain.angle, rich.angle)
    np.testing.assert_array_equal(plain.angle, cropped.angle)


@pytest.mark.parametrize("preset", ["none", "keras_layers", "image_data_generator"])
def test_operations_that_are_off_are_neutral(preset):
    affine, colours = draw(AugmentConfig(preset), 16)
    assert affine.crop is None
    assert not affine.flip_horizontal.any() and not affine.flip_vertical.any()
    for values in (affine.angle, affine.shift_rows, affine.shift_columns, affine.shear):
        np.testing.assert_array_equal(values, np.zeros(16))
    for values in (affine.zoom_rows, affine.zoom_columns, *colours):
        np.testing.assert_array_equal(values, np.ones(16))


def numpy_crops(count, height, width, scale, ratio, seed):
    """Crops by torchvision's procedure as its documentation and code describe it, without rounding."""
    rng = np.random.default_rng(seed)
    crops = []
    for _ in range(count):
        for _ in range(10):
            area = rng.uniform(*scale) * height * width
            aspect = np.exp(rng.uniform(*np.log(ratio)))
            crop_height, crop_width = np.sqrt(area / aspect), np.sqrt(area * aspect)
            if crop_height <= height and crop_width <= width:
                top, left = rng.uniform(0, height - crop_height), rng.uniform(0, width - crop_width)
                break
        else:
            aspect = np.clip(width / height, *ratio)
            crop_height, crop_width = min(height, width / aspect), min(width, height * aspect)
            top, left = (height - crop_height) / 2, (width - crop_width) / 2
        crops.append((crop_height, crop_width, top, left))
    return np.array(crops).T


@pytest.mark.parametrize(
    ("height", "width", "scale"), [(100, 100, (0.08, 1.0)), (60, 140, (0.5, 1.0)), (90, 60, (0.7, 0.9))]
)
def test_crops_follow_torchvisions_law(height, width, scale):
    config = AugmentConfig("keras_layers", crop_scale=scale)
    crop = draw(config, height=height, width=width)[0].crop
    assert np.all(np.asarray(crop.top) >= 0) and np.all(np.asarray(crop.top + crop.height) <= height * (1 + 1e-6))
    assert np.all(np.asarray(crop.left) >= 0) and np.all(np.asarray(crop.left + crop.width) <= width * (1 + 1e-6))
    for ours, theirs in zip(crop, numpy_crops(EXAMPLES, height, width, scale, CROP_RATIO, seed=1), strict=True):
        rounded = np.round(np.asarray(ours, np.float64), 3), np.round(theirs, 3)
        assert scipy.stats.ks_2samp(*rounded).pvalue > SMALLEST_P


def test_crop_reads_its_rectangle():
    """Against Pillow's resizing of a box; its border, where Pillow stops at the box and we do not, is left out."""
    from PIL import Image

    image = np.random.default_rng(3).uniform(0, 255, (40, 60, 1)).astype(np.float32)
    config = AugmentConfig("keras_layers", crop_scale=(0.2, 0.6))
    affine, _ = draw(config, 8, height=40, width=60)
    matrices = matrices_of(affine, "keras_layers", 40, 60)
    results = np.asarray(
        jax.jit(warp, static_argnames="config")(jnp.asarray(image)[None].repeat(8, 0), matrices, config)
    )
    for number, result in enumerate(results):
        height, width, top, left = (float(values[number]) for values in affine.crop)
        box = (left, top, left + width, top + height)
        expected = np.asarray(Image.fromarray(image[..., 0]).resize((60, 40), Image.Resampling.BILINEAR, box=box))
        np.testing.assert_allclose(result[4:-4, 4:-4, 0], expected[4:-4, 4:-4], rtol=0, atol=0.02)


def test_a_crop_of_everything_changes_nothing():
    config = AugmentConfig("keras_layers", crop_scale=(1.0, 1.0))
    affine, _ = draw(config, 4, height=32, width=32)
    np.testing.assert_array_equal(
        matrices_of(affine, "keras_layers", 32, 32), np.tile([[1.0, 0, 0], [0, 1, 0]], (4, 1, 1))
    )
