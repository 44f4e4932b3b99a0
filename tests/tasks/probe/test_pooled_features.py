"""The averages of all layers equal those of one layer at a time, and are computed once for each image."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from vision_transfer.data.dataset import digest_image
from vision_transfer.feature_cache import Prefix
from vision_transfer.models.backbones.registry import backbone_rows
from vision_transfer.models.heads import head_layers
from vision_transfer.models.inference import infer
from vision_transfer.models.layers import AveragePool, Conv, DepthwiseConv, SeparableConv
from vision_transfer.models.network import Network, init
from vision_transfer.tasks.probe import pooled_features as pooled_module
from vision_transfer.tasks.probe.pooled_features import pooled_features, probed_layers


def network_of(backbone, size, **options):
    table = backbone_rows(backbone, **options)
    head = head_layers(2, flatten=True, hidden=(), activation="linear", dropout=0.0, dropout_place="before_output")
    return Network(table, head, (size, size, 3), "rescale")


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (7, 36, 36, 3), np.uint8)


@pytest.fixture
def digests(images):
    return np.stack([np.frombuffer(digest_image(image), np.uint8) for image in images])


@pytest.fixture
def prefix(tmp_path, mesh):
    network = network_of("mnist_convnet", 36)
    return Prefix(network, init(network, jax.random.key(0)), mesh, 3, tmp_path, backbone="mnist_convnet")


def test_layers_that_are_probed():
    assert probed_layers(backbone_rows("mnist_convnet")) == ("conv1", "pool1", "conv2", "pool2", "conv3")
    normed = backbone_rows("mnist_convnet", batch_norm=True, global_average=True)
    assert probed_layers(normed) == ("norm1", "pool1", "norm2", "pool2", "norm3")
    assert len(probed_layers(backbone_rows("vgg16"))) == 18
    lenet = (SeparableConv("conv1", 4), AveragePool("pool1"), DepthwiseConv("conv2"), Conv("conv3", 4))
    assert probed_layers(lenet) == ("conv1", "pool1", "conv2", "conv3")


def test_each_layer_is_its_own_map_averaged(prefix, images, digests, mesh, screen):
    layers = probed_layers(prefix.network.backbone)
    found = pooled_features(prefix, layers, images, digests, screen)
    assert list(found) == list(layers)
    for layer in layers:
        maps = infer(prefix.network, prefix.variables, images, mesh, batch_size=4, stop=layer)
        assert found[layer].dtype == np.float32
        np.testing.assert_allclose(found[layer], maps.mean(axis=(1, 2)), rtol=1e-4, atol=1e-5)


def test_only_missing_images_are_computed(prefix, images, digests, screen, monkeypatch):
    layers = probed_layers(prefix.network.backbone)
    counted = []
    compute = pooled_module._averages

    def counting(prefix, layers, images, numbers, advance):
        counted.append(len(numbers))
        return compute(prefix, layers, images, numbers, advance)

    monkeypatch.setattr(pooled_module, "_averages", counting)
    monkeypatch.setattr(pooled_module, "SHARD_IMAGES", 3)
    some = pooled_features(prefix, layers, images[:5], digests[:5], screen)
    every = pooled_features(prefix, layers, images[::-1], digests[::-1], screen)
    again = pooled_features(prefix, layers, images, digests, screen)
    assert counted == [3, 2, 2]
    for layer in layers:
        np.testing.assert_array_equal(every[layer][::-1], again[layer])
        np.testing.assert_array_equal(some[layer], again[layer][:5])
    other = replace(prefix, network=replace(prefix.network, preprocessing="raw"))
    pooled_features(other, layers, images[:2], digests[:2], screen)
    assert counted[3:] == [2]


def test_the_cache_lists_what_it_holds(prefix, images, digests, screen):
    from vision_transfer.tasks.cache import say_cache

    pooled_features(prefix, probed_layers(prefix.network.backbone), images, digests, screen)
    say_cache(prefix.folder, None, screen)
    assert "averages of 5 layers of mnist_convnet" in screen.console.file.getvalue()
