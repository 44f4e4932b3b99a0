"""Colour jitter against Pillow, the independent source of the same formulas."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from vision_transfer.data.augmentation import AugmentConfig, ColourParameters, jitter_colours
from vision_transfer.data.augmentation.colour import grey

IMAGE = np.random.default_rng(0).integers(0, 256, (24, 31, 3), dtype=np.uint8)
ENHANCERS = {
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "saturation": ImageEnhance.Color,
}


def jitter(image, config, **factors):
    colours = ColourParameters(
        *(jnp.asarray([factors.get(name, 1.0)], jnp.float32) for name in ColourParameters._fields)
    )
    return np.asarray(jitter_colours(jnp.asarray(image, jnp.float32)[None], colours, config)[0])


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7])
@pytest.mark.parametrize("name", list(ENHANCERS))
def test_each_operation_agrees_with_pillow(name, factor):
    config = AugmentConfig("keras_layers", **{name: 1.0})
    expected = np.asarray(ENHANCERS[name](Image.fromarray(IMAGE)).enhance(factor), np.float32)
    # Pillow rounds grey to whole levels before it blends, and truncates the result.
    np.testing.assert_allclose(jitter(IMAGE, config, **{name: factor}), expected, rtol=0, atol=1.5)


def test_operations_that_are_off_are_left_out():
    config = AugmentConfig("keras_layers", brightness=0.5)
    result = jitter(IMAGE, config, brightness=1.0, contrast=0.0, saturation=0.0)
    np.testing.assert_array_equal(result, IMAGE)


def test_order_is_brightness_contrast_saturation():
    config = AugmentConfig("keras_layers", brightness=1.0, contrast=1.0, saturation=1.0)
    factors = {"brightness": 1.4, "contrast": 0.6, "saturation": 1.5}
    expected = IMAGE
    for name, factor in factors.items():
        expected = jitter(expected, AugmentConfig("keras_layers", **{name: 1.0}), **{name: factor})
    np.testing.assert_allclose(jitter(IMAGE, config, **factors), expected, rtol=0, atol=1e-3)


def test_grey_pictures_have_no_saturation():
    config = AugmentConfig("keras_layers", saturation=1.0)
    one_channel = IMAGE[..., :1]
    np.testing.assert_allclose(jitter(one_channel, config, saturation=0.0), one_channel, atol=1e-4)
    np.testing.assert_allclose(grey(jnp.full((1, 2, 2, 3), 200.0)), np.full((1, 2, 2, 1), 200.0), atol=1e-3)
