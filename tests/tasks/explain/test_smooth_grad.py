"""SmoothGrad: without noise the plain gradient, which is checked by finite differences; with noise its mean."""

import jax
import numpy as np

from vision_transfer.tasks.explain.heat_maps import CAP_PERCENTILE, smooth_grad

STEP = 1e-5


def test_without_noise_it_is_the_gradient_of_the_pixels(network, variables, images, forward64):
    image = images[0].astype(np.float64)
    gradient = np.zeros(image.shape)
    for place in np.ndindex(image.shape):
        up, down = image.copy(), image.copy()
        up[place] += STEP
        down[place] -= STEP
        gradient[place] = forward64(network, variables, up, None)[0] - forward64(network, variables, down, None)[0]
    saliency = np.abs(gradient).max(-1)
    expected = np.minimum(saliency / np.percentile(saliency, CAP_PERCENTILE), 1)
    # with one sigmoid, output 0 is the evidence for class 1
    target = np.array([1 if network.outputs == 1 else 0], np.int32)
    found = smooth_grad(network, variables, images[:1], target, jax.random.key(0), samples=1, noise=0.0)[0]
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_the_same_key_gives_the_same_map_and_noise_changes_it(network, variables, images):
    targets = np.array([0, 1], np.int32)
    maps = [
        smooth_grad(network, variables, images, targets, jax.random.key(key), samples=3, noise=noise)
        for key, noise in ((1, 0.15), (1, 0.15), (2, 0.15), (1, 0.0))
    ]
    np.testing.assert_array_equal(maps[0], maps[1])
    assert np.abs(maps[0] - maps[2]).max() > 1e-3 and np.abs(maps[0] - maps[3]).max() > 1e-3
    assert maps[0].shape == images.shape[:3] and maps[0].min() >= 0 and maps[0].max() <= 1


def test_a_flat_network_gives_zeros_and_not_nan(network, variables, images):
    nothing = jax.tree.map(np.zeros_like, variables)
    found = smooth_grad(network, nothing, images, np.zeros(2, np.int32), jax.random.key(0), samples=2)
    np.testing.assert_array_equal(found, 0)
