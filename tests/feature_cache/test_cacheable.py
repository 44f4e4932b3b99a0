"""The rule for which layers' outputs are cached."""

import pytest

from vision_transfer.feature_cache.cacheable import cacheable_layers, cached_layer
from vision_transfer.freezing import resolve
from vision_transfer.models.backbones.registry import backbone_rows
from vision_transfer.models.heads import head_layers
from vision_transfer.models.network import Network

VGG = Network(backbone_rows("vgg16"), head_layers(1, flatten=True, hidden=(256,), dropout=0.5), (180, 180, 3))
AVERAGED = Network(backbone_rows("vgg16", global_average=True), head_layers(10, flatten=False), (112, 112, 3))


@pytest.mark.parametrize(
    ("spec", "cached"),
    [
        ("all", "block5_pool"),
        ("below:block5_conv1", "block4_pool"),
        # Inside a block: the pool before it, and the frozen convolutions between are computed again.
        ("below:block5_conv3", "block4_pool"),
        ("only:block2_conv2", "block1_pool"),
        ("only:block1_conv2", None),
        ("none", None),
        ("regex:block3_conv1/bias", "block2_pool"),
    ],
)
def test_the_last_pool_of_the_frozen_prefix_is_cached(spec, cached):
    assert cached_layer(VGG, resolve(spec, VGG)) == cached


def test_the_global_average_is_cached():
    assert cached_layer(AVERAGED, resolve("all", AVERAGED)) == "global_average_pooling2d"


def test_shallower_layers_can_be_cached_too():
    assert cacheable_layers(VGG, "block3_pool") == ("block3_pool", "block2_pool", "block1_pool")
    assert cacheable_layers(AVERAGED, "global_average_pooling2d")[:2] == ("global_average_pooling2d", "block5_pool")
