"""The choice of images, and of the layer of their heat maps."""

import numpy as np
import pytest

from vision_transfer.errors import UserError
from vision_transfer.models.backbones.registry import backbone_rows
from vision_transfer.models.heads import head_layers
from vision_transfer.models.network import Network
from vision_transfer.tasks.report.image_section import (
    confident_mistakes,
    heat_layer,
    probability_text,
    unconfident_hits,
)
from vision_transfer.tasks.report.run_files import Predictions


def network(backbone, size):
    head = head_layers(2, flatten=True, hidden=(), activation="linear", dropout=0.0, dropout_place="before_output")
    return Network(backbone_rows(backbone), head, (size, size, 3))


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
def test_the_last_convolution_whose_map_is_large_enough(backbone, size, layer):
    assert heat_layer(network(backbone, size)) == layer


def test_without_convolutions_there_is_none():
    with pytest.raises(UserError, match="no convolution"):
        heat_layer(network("dense", 20))


def test_the_most_confident_mistakes_and_the_least_confident_hits():
    logits = np.array([[0, 5], [0, 90], [0, 60], [0, 1], [3, 0], [0.1, 0], [0, 60]])
    files = tuple(f"{place:03}.jpg" for place in range(len(logits)))
    found = Predictions(logits - np.logaddexp(*logits.T)[:, None], np.zeros(len(logits), np.int64), files)
    # two mistakes of equal margin are in the order of their names
    assert confident_mistakes(found).tolist() == [1, 2, 6, 0, 3]
    assert unconfident_hits(found).tolist() == [5, 4]


def test_rounding_makes_nothing_certain():
    assert probability_text(0.99994) == "above 0.9999"
    assert probability_text(0.5) == "0.5000"
