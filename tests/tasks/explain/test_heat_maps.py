"""Grad-CAM and SmoothGrad against finite differences in float64, and Grad-CAM against Keras on VGG16."""

import jax
import numpy as np
import pytest

from vision_transfer.errors import UserError
from vision_transfer.models.backbones.registry import backbone_rows
from vision_transfer.models.layers import Dense, Flatten, layer_names
from vision_transfer.models.network import Network
from vision_transfer.tasks.explain.activations import activations
from vision_transfer.tasks.explain.heat_maps import CAP_PERCENTILE, grad_cam, smooth_grad

STEP, PIXEL_STEP = 1e-6, 1e-5


def by_finite_differences(network, variables, maps, layer, target, forward64):
    """Grad-CAM of one image from the definition, each gradient a difference quotient."""
    start = layer_names(network.layers)[network.index(layer) + 1]
    maps = maps.astype(np.float64)

    def score(values):
        logits = forward64(network, variables, values, start)
        return logits[target] if len(logits) > 1 else (logits[0] if target == 1 else -logits[0])

    gradient = np.zeros(maps.shape)
    for place in np.ndindex(maps.shape):
        up, down = maps.copy(), maps.copy()
        up[place] += STEP
        down[place] -= STEP
        gradient[place] = (score(up) - score(down)) / (2 * STEP)
    heat = np.maximum((maps * gradient.mean((0, 1))).sum(-1), 0)
    return heat / heat.max() if heat.max() > 0 else heat


@pytest.mark.parametrize("layer", ["conv1", "conv2"])
def test_agrees_with_finite_differences(network, variables, images, forward64, layer):
    maps = activations(network, variables, images, [layer])[layer]
    for target in range(max(2, network.outputs)):
        heat = grad_cam(network, variables, images, layer, np.full(len(images), target, np.int32))
        assert heat.dtype == np.float32 and heat.shape == maps.shape[:-1]
        for found, one in zip(heat, maps, strict=True):
            expected = by_finite_differences(network, variables, one, layer, target, forward64)
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_targets_and_images_do_not_mix(network, variables, images):
    targets = np.array([0, 1], np.int32)
    together = grad_cam(network, variables, images, "conv2", targets)
    alone = [grad_cam(network, variables, images[i : i + 1], "conv2", targets[i : i + 1])[0] for i in (0, 1)]
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-6)
    assert together.min() >= 0 and together.max() <= 1


def test_a_layer_must_exist_and_have_a_map(network, variables, images):
    with pytest.raises(UserError, match=r"did you mean .*conv2"):
        grad_cam(network, variables, images, "conv22", np.zeros(2, np.int32))
    with pytest.raises(UserError, match=r"'logits' gives a vector of .*conv1, pool1, conv2"):
        grad_cam(network, variables, images, "logits", np.zeros(2, np.int32))


@pytest.mark.parametrize(("outputs", "case"), [(1, "sigmoid"), (3, "softmax")])
def test_agrees_with_keras_on_vgg16(vgg16_params, reference, outputs, case):
    expected, image = reference("grad_cam"), reference("augmentation")["image"]
    head = (Flatten("flatten"), Dense("logits", outputs))
    network = Network(backbone_rows("vgg16"), head, image.shape, "caffe")
    kernel = np.random.RandomState(outputs).normal(0, 0.01, (4 * 4 * 512, outputs)).astype(np.float32)
    params = {**vgg16_params, "logits": {"kernel": kernel, "bias": np.zeros(outputs, np.float32)}}
    for target in range(max(2, outputs)):
        for layer in ("block5_conv3", "block4_conv3"):
            heat = grad_cam(network, {"params": params}, image[None], layer, np.array([target], np.int32))[0]
            np.testing.assert_allclose(heat, expected[f"{case}_{target}_{layer}"], atol=1e-3)


def test_without_noise_it_is_the_gradient_of_the_pixels(network, variables, images, forward64):
    image = images[0].astype(np.float64)
    gradient = np.zeros(image.shape)
    for place in np.ndindex(image.shape):
        up, down = image.copy(), image.copy()
        up[place] += PIXEL_STEP
        down[place] -= PIXEL_STEP
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
