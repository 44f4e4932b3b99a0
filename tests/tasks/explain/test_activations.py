"""Activations against the float64 network, layers with maps, and the scaling of channels."""

import numpy as np
import pytest

from vision_transfer.errors import UserError
from vision_transfer.models.backbones.registry import backbone_rows
from vision_transfer.models.heads import head_layers
from vision_transfer.models.network import Network
from vision_transfer.tasks.explain.activations import activations, last_map, map_layers, standardised
from vision_transfer.tasks.explain.draw import default_layers


def test_each_layer_s_output_leads_to_the_same_logits(network, variables, images, forward64):
    found = activations(network, variables, images, ["conv2", "conv1", "pool1"])
    assert list(found) == ["conv1", "pool1", "conv2"]
    expected = forward64(network, variables, images[0], None)
    after = {"conv1": "pool1", "pool1": "conv2", "conv2": network.head[0].name}
    for layer, maps in found.items():
        assert maps.dtype == np.float32
        np.testing.assert_allclose(forward64(network, variables, maps[0], after[layer]), expected, atol=1e-5)


def test_layers_that_do_not_exist_or_have_no_map(network, variables, images):
    with pytest.raises(UserError, match=r"did you mean .*conv1"):
        activations(network, variables, images, ["convl"])
    with pytest.raises(UserError, match="gives a vector"):
        activations(network, variables, images, ["logits"])


def on_images(backbone, size, batch_norm=False):
    return Network(backbone_rows(backbone, batch_norm=batch_norm), head_layers(2, flatten=True), (size, size, 3))


def test_all_eight_layers_of_the_small_convnet_have_maps():
    assert len(map_layers(on_images("convnet_150", 150))) == 8


@pytest.mark.parametrize(
    ("backbone", "size", "layer"),
    [
        ("vgg16", 180, "block5_conv3"),
        ("vgg16", 48, "block5_conv3"),
        ("vgg16", 32, "block4_conv3"),
        ("mnist_convnet", 28, "conv3"),
        ("mnist_convnet", 20, "conv2"),
        ("convnet_150", 150, "conv4"),
        ("efficientnet_lite0", 224, "top_activation"),
        ("efficientnet_lite0", 64, "block6a_expand_activation"),
    ],
)
def test_the_last_map_is_large_enough_to_show_places(backbone, size, layer):
    assert last_map(on_images(backbone, size)) == layer


def test_the_batch_norm_after_the_last_convolution_is_the_last_map():
    assert last_map(on_images("convnet_150", 150, batch_norm=True)) == "norm4"


def test_a_network_without_convolutions_has_no_maps_but_a_way_out():
    with pytest.raises(UserError, match=r"no convolution.*--show=smooth_grad"):
        last_map(Network((), head_layers(3, flatten=True), (8, 8, 1)))


@pytest.mark.parametrize(
    ("backbone", "layers"),
    [
        ("convnet_150", ("conv1", "pool1", "conv2", "pool2", "conv3", "pool3", "conv4", "pool4")),
        ("vgg16", tuple(f"block{number}_pool" for number in range(1, 6))),
        (
            "efficientnet_lite0",
            (
                "stem_activation",
                "block1a_project_bn",
                "block2b_add",
                "block3b_add",
                "block4c_add",
                "block5c_add",
                "block6d_add",
                "block7a_project_bn",
                "top_activation",
            ),
        ),
    ],
)
def test_one_map_of_each_stage_of_a_deep_network_is_drawn(backbone, layers):
    assert default_layers(on_images(backbone, 150)) == layers


def test_blocks_and_layers_inside_them_have_activations_in_the_network_s_order(every_row, varied_variables):
    images = np.zeros((1, *every_row.input_shape), np.uint8)
    layers = ("mix", "residual", "depthwise", "stem_norm")
    found = activations(every_row, varied_variables(every_row), images, layers)
    assert list(found) == ["stem_norm", "depthwise", "residual", "mix"]
    assert {name: maps.shape[1:] for name, maps in found.items()} == {
        name: every_row.shape_after(name) for name in layers
    }


def test_channels_are_scaled_separately_and_constant_ones_are_nan():
    random = np.random.default_rng(0)
    maps = random.normal(5, 2, (20, 20, 3))
    maps[..., 1] = 4
    maps[..., 2] = maps[..., 0] * 1000 - 7
    scaled = standardised(maps)
    assert np.isnan(scaled[..., 1]).all()
    np.testing.assert_allclose(scaled[..., 0], scaled[..., 2], atol=1e-5)
    inside = np.abs(maps[..., 0] - maps[..., 0].mean()) < 2 * maps[..., 0].std()
    expected = 0.5 + (maps[..., 0] - maps[..., 0].mean()) / (4 * maps[..., 0].std())
    np.testing.assert_allclose(scaled[..., 0][inside], expected[inside], atol=1e-5)
    assert set(np.unique(scaled[..., 0][~inside])) <= {0.0, 1.0}
