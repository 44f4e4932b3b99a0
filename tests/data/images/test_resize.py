"""Resizing against TensorFlow's and Keras's own numbers, and against JAX's resize."""

import os
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vision_transfer.data.images.decode import decode_file, decode_image
from vision_transfer.data.images.resize import resize, resize_bilinear, resize_nearest

REFERENCE = Path(__file__).parents[2] / "reference"
RESIZED = np.load(REFERENCE / "resize.npz")
STRIDE = 29
SIZES = (150, 180, 224)
PHOTOS = (0, 2)
# On a scale of 0-255; what was seen is 0.
TOLERANCE = 1e-3


@pytest.mark.parametrize("case", range(6))
def test_bilinear_is_tensorflows_on_noise(case):
    expected = RESIZED[f"bilinear_{case}"]
    found = resize_bilinear(RESIZED[f"image_{case}"], *expected.shape[:2])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def test_bilinear_is_tensorflows_on_a_photo():
    photo = Image.open(REFERENCE / "cat_chelsea.jpg")
    # The fast DCT, which is TensorFlow's: scale 1 and Pillow's draft mode, harmless here since nothing is subsampled.
    photo.decoderconfig = (1, 1)
    expected = np.load(REFERENCE / "augmentation.npz")["image"]
    np.testing.assert_allclose(resize_bilinear(np.asarray(photo), 150, 150), expected, atol=TOLERANCE)


def test_the_accurate_dct_differs_from_tensorflows_by_little():
    expected = np.load(REFERENCE / "augmentation.npz")["image"]
    difference = np.abs(resize_bilinear(decode_file(REFERENCE / "cat_chelsea.jpg", 3), 150, 150) - expected)
    assert difference.mean() < 1.5
    assert difference.max() < 16


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]))
@settings(max_examples=12, deadline=None)
def test_bilinear_is_jaxs_without_antialiasing(height, width, new_height, new_width, channels):
    image = np.random.default_rng(height).integers(0, 255, (height, width, channels), dtype=np.uint8)
    expected = jax.image.resize(
        image.astype(np.float32), (new_height, new_width, channels), method="bilinear", antialias=False
    )
    np.testing.assert_allclose(resize_bilinear(image, new_height, new_width), expected, atol=2e-2)


@pytest.mark.parametrize("shape", [(7, 5, 3), (31, 64, 1), (1, 1, 3)])
def test_nearest_is_load_imgs(shape):
    image = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    expected = np.asarray(Image.fromarray(image.squeeze(2) if shape[2] == 1 else image).resize((13, 9), Image.NEAREST))
    np.testing.assert_array_equal(resize_nearest(image, 9, 13), expected.reshape(9, 13, shape[2]))


@pytest.mark.parametrize("resampling", ["bilinear", "nearest"])
def test_an_image_of_the_size_asked_for_is_untouched(resampling):
    image = np.random.default_rng(0).integers(0, 255, (12, 12, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resize(image, 12, resampling), image)


def test_the_cached_form_is_rounded_and_not_cut_off():
    image = np.array([[[0], [255]]], np.uint8)
    # Weights of the right pixel 0, 1/4, 3/4, 1: 0, 63.75, 191.25, 255.
    np.testing.assert_array_equal(resize(np.repeat(image, 2, 0), 4, "bilinear")[0, :, 0], [0, 64, 191, 255])


@pytest.mark.skipif("VISION_TRANSFER_DATA" not in os.environ, reason="VISION_TRANSFER_DATA is not set")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("photo", PHOTOS)
def test_photos_resized_as_by_keras(size, photo):
    content = (Path(os.environ["VISION_TRANSFER_DATA"]) / str(RESIZED["photo_photos"][photo])).read_bytes()
    image = decode_image(content, 3)
    nearest = resize_nearest(image, size, size)[::STRIDE, ::STRIDE]
    np.testing.assert_array_equal(nearest, RESIZED[f"photo_nearest_{size}_{photo}"])
    bilinear = resize_bilinear(image, size, size)[::STRIDE, ::STRIDE]
    # TensorFlow's fast DCT alone makes a difference of about 1 grey level, and more at chroma edges.
    difference = np.abs(bilinear - RESIZED[f"photo_bilinear_{size}_{photo}"])
    assert difference.mean() < 1.5
    assert difference.max() < 16
