"""Gradient ascent: filters respond more than before; one program for all gives what each alone gives."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from vision_transfer.errors import UserError
from vision_transfer.models.backbones.registry import backbone_rows
from vision_transfer.models.layers import Conv
from vision_transfer.models.network import Network, init
from vision_transfer.tasks.explain.activation_maximization import (
    TEXTBOOK_NOISE,
    TEXTBOOK_START,
    WAYS,
    filter_images,
    shown,
)
from vision_transfer.tasks.explain.activations import activations

KEY = jax.random.key(3)
LINEAR = Network((Conv("conv1", 3, activation="linear"),), (), (12, 12, 2), "raw")


@pytest.fixture(scope="module")
def small():
    network = Network(backbone_rows("mnist_convnet"), (), (28, 28, 1), "rescale")
    variables = init(network, jax.random.key(1))
    # the textbook's way finds no gradient for a filter whose output is 0 at the start
    variables["params"]["conv2"]["bias"] += 1
    return network, variables


@pytest.mark.parametrize("way", WAYS)
def test_filters_of_one_program_do_not_influence_one_another(small, way):
    network, variables = small
    together, _, _ = filter_images(network, variables, "conv2", [4, 0, 9], KEY, way=way, size=20)
    alone, _, _ = filter_images(network, variables, "conv2", [9], KEY, way=way, size=20)
    np.testing.assert_allclose(together[2], alone[0], atol=0.5)
    assert together.shape == (3, 20, 20, 1)


@pytest.mark.parametrize("way", WAYS)
def test_before_and_after_are_the_mean_outputs_of_these_images(small, way):
    network, variables = small
    found, before, after = filter_images(network, variables, "conv2", [1, 2], KEY, way=way, size=28)
    maps = activations(network, variables, found, ["conv2"])["conv2"]
    np.testing.assert_allclose(after, [maps[0, ..., 1].mean(), maps[1, ..., 2].mean()], rtol=1e-4, atol=1e-6)
    assert (after > before).all(), (before, after)


def test_the_textbook_s_steps_on_a_linear_filter_are_a_straight_line():
    """The gradient of a linear layer never changes, so 40 steps are 40 times the gradient by its root mean square."""
    variables = init(LINEAR, jax.random.key(0))
    found, _, _ = filter_images(LINEAR, variables, "conv1", [1], KEY, way="textbook", size=12)
    kernel = variables["params"]["conv1"]["kernel"][..., 1].astype(np.float64)
    gradient = np.zeros((12, 12, 2))
    for row in range(10):
        for column in range(10):
            gradient[row : row + 3, column : column + 3] += kernel / 100
    start = found[0] - 40 * gradient / (np.sqrt((gradient**2).mean()) + 1e-5)
    assert start.min() >= TEXTBOOK_START - 1e-2 and start.max() <= TEXTBOOK_START + TEXTBOOK_NOISE + 1e-2
    np.testing.assert_allclose(start.mean(), TEXTBOOK_START + TEXTBOOK_NOISE / 2, atol=2)


def test_filters_of_layers_inside_blocks_respond_more(every_row, varied_variables):
    variables = varied_variables(every_row)
    found, before, after = filter_images(every_row, variables, "project_norm", [0, 3], KEY, size=32)
    sized = replace(every_row, input_shape=(32, 32, 3))
    maps = activations(sized, variables, found, ["project_norm"])["project_norm"]
    np.testing.assert_allclose(after, [maps[0, ..., 0].mean(), maps[1, ..., 3].mean()], rtol=1e-3, atol=1e-5)
    assert (after > before).all(), (before, after)


def test_smooth_images_stay_in_range(small):
    network, variables = small
    found, _, _ = filter_images(network, variables, "conv1", [0, 1], KEY, way="smooth", size=20)
    assert found.min() >= 0 and found.max() <= 255


def test_a_filter_that_does_not_exist(small):
    network, variables = small
    with pytest.raises(UserError, match="conv2 has no filter 64; it has 64"):
        filter_images(network, variables, "conv2", [64], KEY)


def test_shown_images_have_their_mean_in_the_middle():
    image = np.random.default_rng(0).normal(900, 3, (9, 9, 3)).astype(np.float32)
    assert abs(shown(image).mean() - 0.5) < 0.01
    np.testing.assert_array_equal(shown(np.full((4, 4, 3), 7.0, np.float32)), 0.5)


def test_ten_filters_of_vgg16_respond_at_least_tenfold(vgg16_params):
    network = Network(backbone_rows("vgg16", output="block4_conv1"), (), (224, 224, 3), "caffe")
    variables = {"params": vgg16_params}
    _, before, after = filter_images(network, variables, "block4_conv1", range(12), KEY, way="textbook", size=32)
    # of twelve, since this way finds no gradient for a filter whose output is 0 at the start
    assert ((after >= 10 * before) & (after > 0)).sum() >= 10, (before, after)
