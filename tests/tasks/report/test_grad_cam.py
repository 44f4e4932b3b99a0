"""Heat maps are of a layer that has something to show."""

import pytest

from vision_transfer.errors import UserError
from vision_transfer.models.backbones import backbone_layers
from vision_transfer.models.heads import head_layers
from vision_transfer.models.network import Network
from vision_transfer.tasks.report.grad_cam import heat_layer


def network(backbone, size):
    head = head_layers(2, flatten=True, hidden=(), activation="linear", dropout=0.0, dropout_place="before_output")
    return Network(backbone_layers(backbone), head, (size, size, 3))


@pytest.mark.parametrize(
    ("backbone", "size", "layer"),
    [
        ("vgg16", 180, "block5_conv3"),
        ("vgg16", 48, "block5_conv3"),
        ("vgg16", 32, "block4_conv3"),
        ("mnist_convnet", 28, "conv3"),
        ("mnist_convnet", 20, "conv2"),
    ],
)
def test_the_last_convolution_with_a_map_of_some_size(backbone, size, layer):
    assert heat_layer(network(backbone, size)) == layer


def test_without_convolutions_there_is_none():
    with pytest.raises(UserError, match="no convolution"):
        heat_layer(network("dense", 20))
