"""The facts about the published weights; and the weights themselves, where they are in the cache."""

import os
import re
from pathlib import Path

import numpy as np
import pytest

from tests.models.pretrained.conftest import write_keras_h5
from vision_transfer.models.backbones.registry import BACKBONES, RELEASES
from vision_transfer.models.network import Network, all_parameter_shapes
from vision_transfer.models.pretrained.load import load_pretrained
from vision_transfer.models.pretrained.releases import KERAS_URL, Wheel
from vision_transfer.models.pretrained.tensors import tensors_sha256
from vision_transfer.models.pretrained.weights_file import read_weights_file
from vision_transfer.runtime.download import RemoteFile

# Sha256 over the 26 tensors of VGG16's base and some of their values, known independently of this package.
VGG16_BASE_SHA256 = "d9a27cc1fc7f975ef8cff49180e794ccd7c4bc868ebb49740803b3bbaa8dbefd"
FIRST_KERNEL_VALUES = (0.42947057, 0.11727387, 0.03401296)
LAST_BIAS_VALUE = 0.18837857
VGG16_BASE_PARAMETERS = 14_714_688


def vgg16_base_shapes():
    shapes, inputs = {}, 3
    for block, (count, features) in enumerate([(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)], 1):
        for convolution in range(1, count + 1):
            shapes[f"block{block}_conv{convolution}"] = {"kernel": (3, 3, inputs, features), "bias": (features,)}
            inputs = features
    return shapes


def test_each_network_has_at_most_one_release():
    names = [release.name for release in RELEASES]
    assert len(set(names)) == len(names)
    digests = [release.tensors_sha256 for release in RELEASES if release.tensors_sha256]
    assert len(set(digests)) == len(digests)
    for release in RELEASES:
        assert release.sources
        assert release.licence
        assert release.tensors_sha256 is None or re.fullmatch("[0-9a-f]{64}", release.tensors_sha256)


def test_what_is_downloaded_from_keras_is_the_file_of_that_network():
    files = [(release, source) for release in RELEASES for source in release.sources if isinstance(source, RemoteFile)]
    assert len({source.url for _, source in files}) == len(files)
    for release, source in files:
        assert source.url.startswith(KERAS_URL)
        assert source.digest is None or re.fullmatch("md5:[0-9a-f]{32}", source.digest)
        assert source.name.startswith(release.architecture)
        assert ("top" in source.name) != release.include_classifier


def test_a_wheel_is_known_by_its_digest_and_is_the_same_for_both_releases():
    wheels = {}
    for source in (source for release in RELEASES for source in release.sources if isinstance(source, Wheel)):
        assert re.fullmatch("[0-9a-f]{64}", source.sha256)
        assert wheels.setdefault(source.project, source) == source


def test_a_release_in_a_wheel_has_a_digest_over_its_tensors():
    """A wheel is somebody else's copy, so each release that has one has the digest over its tensors too."""
    for release in RELEASES:
        if any(isinstance(source, Wheel) for source in release.sources):
            assert release.tensors_sha256


def test_sizes_are_those_of_the_tensors_and_a_little():
    base = sum(4 * int(np.prod(shape)) for layer in vgg16_base_shapes().values() for shape in layer.values())
    assert base == 4 * VGG16_BASE_PARAMETERS
    release, _ = BACKBONES["vgg16"].releases
    assert 0 < release.download.size - base < 100_000


def test_each_release_belongs_to_its_backbone():
    for name, backbone in BACKBONES.items():
        assert {release.architecture for release in backbone.releases} <= {name}
        assert backbone.classifier or not any(release.include_classifier for release in backbone.releases)
        assert {release.preprocessing for release in backbone.releases} <= {backbone.preprocessing}


@pytest.fixture
def cache_dir():
    folder = os.environ.get("VISION_TRANSFER_CACHE")
    if not folder or not (Path(folder) / "weights" / "vgg16_notop.safetensors").exists():
        pytest.skip("VGG16's weights are not in $VISION_TRANSFER_CACHE; --mode=fetch puts them there")
    return Path(folder)


def test_vgg16_base_is_the_published_one(cache_dir, screen, shown, tmp_path, same):
    shapes = vgg16_base_shapes()
    weights = load_pretrained(
        "vgg16", include_classifier=False, shapes=shapes, cache_dir=cache_dir, screen=screen, allow_download=False
    )
    assert weights.sha256 == tensors_sha256(weights.params) == VGG16_BASE_SHA256
    assert sum(values.size for layer in weights.params.values() for values in layer.values()) == VGG16_BASE_PARAMETERS
    np.testing.assert_array_equal(
        weights.params["block1_conv1"]["kernel"][0, 0, 0, :3], np.float32(FIRST_KERNEL_VALUES)
    )
    assert weights.params["block5_conv3"]["bias"][0] == np.float32(LAST_BIAS_VALUE)
    assert weights.preprocessing == "caffe"
    assert "CC BY 4.0" in shown()
    write_keras_h5(tmp_path / "vgg16.h5", weights.params)
    same(read_weights_file(tmp_path / "vgg16.h5", shapes).params, weights.params)


@pytest.mark.parametrize("release", [one for one in RELEASES if one.tensors_sha256], ids=lambda release: release.name)
def test_cached_weights_are_the_published_ones(release, screen):
    """Their digest is over all tensors; those that are not in the cache are not fetched for this."""
    folder = Path(os.environ.get("VISION_TRANSFER_CACHE") or "nowhere")
    if not (folder / "weights" / f"{release.name}.safetensors").exists():
        pytest.skip(f"{release.name} is not in $VISION_TRANSFER_CACHE; --mode=fetch puts it there")
    backbone = BACKBONES[release.architecture]
    classifier = backbone.classifier if release.include_classifier else ()
    network = Network(backbone.rows, classifier, (backbone.image_size, backbone.image_size, 3))
    weights = load_pretrained(
        release.architecture,
        include_classifier=release.include_classifier,
        shapes=all_parameter_shapes(network),
        cache_dir=folder,
        screen=screen,
        allow_download=False,
    )
    assert weights.sha256 == release.tensors_sha256
    # a channel whose input is always zero has no variance
    assert all((stats["variance"] >= 0).all() for stats in weights.batch_stats.values())
