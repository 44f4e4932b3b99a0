"""All figures are legible: labels neither overlap nor leave the page, however long names are."""

import numpy as np
import pytest

from vision_transfer.tasks.explain.figures import tiled
from vision_transfer.tasks.explain.filter_banks import filter_banks, responses
from vision_transfer.tasks.explain.network_figures import activations_figure, filters_figure, heat_figure
from vision_transfer.tasks.explain.operations import operations
from vision_transfer.tasks.explain.teaching_figures import filter_bank_figure, operations_figure

RANDOM = np.random.default_rng(0)
LONG = "a picture whose name is rather long, as cameras and people give them"


@pytest.mark.parametrize("shape", [(26, 26, 32), (14, 14, 512), (148, 148, 3), (1, 1, 64), (9, 30, 17)])
def test_activations(assert_legible, shape):
    maps = RANDOM.normal(size=shape)
    maps[..., 1] = 0
    assert_legible(activations_figure(maps, "block5_conv3", "a_picture_of_mine"))


@pytest.mark.parametrize("numbers", [tuple(range(64)), tuple(range(16)), (3, 511, 20), (0,), tuple(range(100, 110))])
def test_filters(assert_legible, numbers):
    images = RANDOM.normal(128, 20, (len(numbers), 16, 16, 3))
    assert_legible(filters_figure(images, numbers, "block5_conv3", "textbook"))


@pytest.mark.parametrize("size", [(150, 150), (60, 200), (300, 60)])
def test_heat(assert_legible, size):
    picture = RANDOM.integers(0, 256, (*size, 3), dtype=np.uint8)
    title = "chelsea\nAfrican_elephant 0.909, tusker 0.086, Indian_elephant 0.004"
    assert_legible(heat_figure(picture, RANDOM.random((14, 14)), title, "Grad-CAM for cat\nat block5_conv3, 14 × 14"))
    assert_legible(heat_figure(picture, RANDOM.random((14, 14)), LONG, LONG))


@pytest.mark.parametrize("bank", ["sobel", "haar", "gabor"])
def test_filter_banks(assert_legible, bank):
    kernels = filter_banks()[bank]
    brightness = RANDOM.random((40, 60))
    picture = (brightness[..., None] * 255).astype(np.uint8)
    assert_legible(filter_bank_figure(picture, LONG, kernels, responses(brightness, kernels)))


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
