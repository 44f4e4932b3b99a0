"""Heat laid over a picture at the picture's own size."""

import numpy as np
import pytest

from vision_transfer.tasks.explain.overlay import STRENGTH, superimpose


@pytest.mark.parametrize("channels", [1, 3])
def test_the_picture_keeps_its_size_and_stays_where_nothing_is_hot(channels):
    picture = np.random.default_rng(0).integers(0, 256, (31, 17, channels), dtype=np.uint8)
    cold = superimpose(picture, np.zeros((4, 4), np.float32))
    assert cold.shape == (31, 17, 3) and cold.dtype == np.uint8
    np.testing.assert_array_equal(cold, np.broadcast_to(picture, cold.shape))


def test_heat_lies_where_it_was_found():
    picture = np.full((40, 20, 3), 100, np.uint8)
    heat = np.zeros((4, 4), np.float32)
    heat[0, 3] = 1
    changed = np.abs(superimpose(picture, heat).astype(int) - 100).max(-1)
    assert changed[:10, 15:].min() > 0 and changed[20:].max() == 0 and changed[:, :10].max() == 0


def test_the_hottest_place_still_shows_the_picture():
    dark, bright = (superimpose(np.full((4, 4, 3), value, np.uint8), np.ones((2, 2))) for value in (0, 255))
    np.testing.assert_allclose(bright.astype(int) - dark, 255 * (1 - STRENGTH), atol=1)
