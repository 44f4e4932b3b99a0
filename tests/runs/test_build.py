"""The network of a config, for data."""

import pytest

from vision_transfer.config import checked, default_config, stage, with_stages
from vision_transfer.errors import UserError
from vision_transfer.runs.build import DataFacts, build_network


def test_only_published_weights_need_three_channels():
    """A file may have weights for grey images; the shapes of its tensors say so where it is read."""
    config = default_config()
    config.model.backbone = "resnet50"
    config.dataset.channels = 1
    config = with_stages(config, head=stage(freeze="all"))
    facts = DataFacts(2, (224, 224, 1))
    with pytest.raises(UserError, match="ImageNet weights of resnet50 take RGB images"):
        build_network(checked(config), facts)
    config.model.weights_path = "grey.pth"
    assert build_network(checked(config), facts).input_shape == (224, 224, 1)


def test_grey_images_are_refused_where_the_preprocessing_has_a_mean_for_each_colour():
    config = default_config()
    config.model.backbone, config.model.weights, config.dataset.channels = "vgg16", "random", 1
    config = with_stages(config, head=stage(freeze="none"))
    facts = DataFacts(2, (32, 32, 1))
    with pytest.raises(
        UserError, match=r"config\.dataset\.channels: got 1; .*'caffe'.*config\.model\.preprocessing=res"
    ):
        build_network(checked(config), facts)
    config.init_from = "runs/grey"  # which may have taken another one
    assert build_network(checked(config), facts).input_shape == (32, 32, 1)
    config.init_from, config.model.preprocessing = None, "rescale"
    assert build_network(checked(config), facts).input_shape == (32, 32, 1)


def test_a_grid_needs_maps_that_are_averaged():
    config = default_config()
    config.model.backbone, config.model.weights, config.model.pooling_grid = "mnist_convnet", "random", 2
    config = with_stages(config, head=stage(freeze="all"))
    facts = DataFacts(10, (28, 28, 1))
    with pytest.raises(
        UserError, match=r"config\.model\.pooling_grid: got 2; a grid needs config\.model\.pooling='aver"
    ):
        build_network(checked(config), facts)
    config.model.pooling = "average"
    assert build_network(checked(config), facts).shape_after("pooled_layers") == (4 * 64,)
