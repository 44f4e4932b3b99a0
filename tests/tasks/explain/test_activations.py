"""Activations against the float64 network, layers with maps, and the scaling of channels."""

import numpy as np
import pytest

from vision_transfer.errors import UserError
from vision_transfer.models.backbones.registry import backbone_rows
from vision_transfer.models.heads import head_layers
from vision_transfer.models.network import Network
from vision_transfer.tasks.explain.activations import activations, last_map, map_layers, standardised


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


def test_all_eight_layers_of_the_small_convnet_have_maps():
    network = Network(backbone_rows("convnet_150"), head_layers(1, flatten=True), (150, 150, 3))
    assert len(map_layers(network)) == 8
    assert last_map(network) == "conv4"


def test_the_batch_norm_after_the_last_convolution_is_the_last_map():
    layers = backbone_rows("convnet_150", batch_norm=True)
    assert last_map(Network(layers, head_layers(1, flatten=True), (150, 150, 3))) == "norm4"


def test_a_network_without_convolutions_has_no_maps():
    with pytest.raises(UserError, match="no convolution"):
        last_map(Network((), head_layers(3, flatten=True), (8, 8, 1)))


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
