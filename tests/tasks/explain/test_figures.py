"""All figures are legible (no label overlaps another or leaves the page); heat maps lie where they belong."""

import numpy as np
import pytest

from vision_transfer.tasks.explain.figures import (
    HEAT_STRENGTH,
    activations_figure,
    filter_bank_figure,
    filters_figure,
    heat_figure,
    operations_figure,
    superimpose,
    tiled,
)
from vision_transfer.tasks.explain.teaching import filter_banks, operations, responses

RANDOM = np.random.default_rng(0)
LONG = "a image whose name is rather long, as cameras and people give them"


@pytest.mark.parametrize("shape", [(26, 26, 32), (14, 14, 512), (148, 148, 3), (1, 1, 64), (9, 30, 17)])
def test_activations(assert_legible, shape):
    maps = RANDOM.normal(size=shape)
    maps[..., 1] = 0
    assert_legible(activations_figure(maps, "block5_conv3", "a_image_of_mine"))


@pytest.mark.parametrize("numbers", [tuple(range(64)), tuple(range(16)), (3, 511, 20), (0,), tuple(range(100, 110))])
def test_filters(assert_legible, numbers):
    images = RANDOM.normal(128, 20, (len(numbers), 16, 16, 3))
    assert_legible(filters_figure(images, numbers, "block5_conv3", "textbook"))


@pytest.mark.parametrize("size", [(150, 150), (60, 200), (300, 60)])
def test_heat(assert_legible, size):
    image = RANDOM.integers(0, 256, (*size, 3), dtype=np.uint8)
    title = "chelsea\nAfrican_elephant 0.909, tusker 0.086, Indian_elephant 0.004"
    assert_legible(heat_figure(image, RANDOM.random((14, 14)), title, "Grad-CAM for cat\nat block5_conv3, 14 × 14"))
    assert_legible(heat_figure(image, RANDOM.random((14, 14)), LONG, LONG))


@pytest.mark.parametrize("bank", ["sobel", "haar", "gabor"])
def test_filter_banks(assert_legible, bank):
    kernels = filter_banks()[bank]
    brightness = RANDOM.random((40, 60))
    image = (brightness[..., None] * 255).astype(np.uint8)
    assert_legible(filter_bank_figure(image, LONG, kernels, responses(brightness, kernels)))


@pytest.mark.parametrize("side", [8, 20])
def test_operations(assert_legible, side):
    image = RANDOM.integers(0, 11, (side, side)).astype(float)
    kernel = filter_banks()["sobel"][0]
    assert_legible(operations_figure(image, kernel, operations(image, kernel.values), LONG))


def test_tiles_lie_row_after_row():
    cells = [np.full((2, 3), number, float) for number in range(5)]
    page = tiled(cells, columns=3, gap=1)
    assert page.shape == (5, 11)
    assert [page[0, 0], page[0, 4], page[0, 8], page[3, 0], page[3, 4]] == [0, 1, 2, 3, 4]
    assert np.isnan(page[2]).all() and np.isnan(page[:, 3]).all() and np.isnan(page[3:, 8:]).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_the_image_keeps_its_size_and_stays_where_nothing_is_hot(channels):
    image = np.random.default_rng(0).integers(0, 256, (31, 17, channels), dtype=np.uint8)
    cold = superimpose(image, np.zeros((4, 4), np.float32))
    assert cold.shape == (31, 17, 3) and cold.dtype == np.uint8
    np.testing.assert_array_equal(cold, np.broadcast_to(image, cold.shape))


def test_heat_lies_where_it_was_found():
    image = np.full((40, 20, 3), 100, np.uint8)
    heat = np.zeros((4, 4), np.float32)
    heat[0, 3] = 1
    changed = np.abs(superimpose(image, heat).astype(int) - 100).max(-1)
    assert changed[:10, 15:].min() > 0 and changed[20:].max() == 0 and changed[:, :10].max() == 0


def test_the_hottest_place_still_shows_the_image():
    dark, bright = (superimpose(np.full((4, 4, 3), value, np.uint8), np.ones((2, 2))) for value in (0, 255))
    np.testing.assert_allclose(bright.astype(int) - dark, 255 * (1 - HEAT_STRENGTH), atol=1)
