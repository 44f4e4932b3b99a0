"""`features` from Python: of arrays and of files, at any layer, equal to the network applied by hand."""

import numpy as np
import pytest
from PIL import Image

from vision_transfer.errors import UserError
from vision_transfer.models.load import load
from vision_transfer.models.network import apply
from vision_transfer.predict.features import features

SIZE = 24


@pytest.fixture(scope="module")
def loaded():
    return load("mnist_convnet", weights="random", image_size=SIZE)


@pytest.fixture(scope="module")
def photos(tmp_path_factory, scene):
    """Three photos of the network's size and one of another, without loss."""
    folder = tmp_path_factory.mktemp("photos")
    for number, (height, width) in enumerate([(SIZE, SIZE)] * 3 + [(50, 40)]):
        Image.fromarray(scene(number, height, width)).save(folder / f"{number}.png")
    return folder


def test_features_of_an_array_are_the_layer_s_outputs_in_any_batches(loaded, scene):
    network, variables = loaded
    images = np.stack([scene(number, SIZE, SIZE) for number in range(5)])
    for layer in ("conv2", None):
        expected = np.asarray(apply(network, variables, images, stop=layer or network.rows[-1].name))
        for batch_size in (2, 32):
            found = features(network, variables, images, layer=layer, batch_size=batch_size)
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_files_folders_and_patterns_are_decoded_and_resized(loaded, photos):
    pixels = np.stack([np.asarray(Image.open(photos / f"{number}.png")) for number in range(3)])
    expected = features(*loaded, pixels)
    for images in (photos, str(photos / "*.png"), [photos / f"{number}.png" for number in range(4)]):
        found = features(*loaded, images)
        assert found.shape == (4, 64)
        np.testing.assert_allclose(found[:3], expected, rtol=1e-5, atol=1e-6)


def test_what_cannot_be_used_is_said(loaded, photos, tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    network, variables = loaded
    for images, part in [
        (np.zeros((2, SIZE + 1, SIZE, 3), np.uint8), "(2, 25, 24, 3)"),
        (np.zeros((0, SIZE, SIZE, 3), np.uint8), "at least one"),
        ([tmp_path / "text.jpg"], "text.jpg"),
        ([], "at least one"),
        (tmp_path / "*.gif", "no file matches"),
    ]:
        with pytest.raises(UserError, match=r".*") as refused:
            features(network, variables, images)
        assert part in str(refused.value)
    with pytest.raises(UserError, match="conv9"):
        features(network, variables, photos, layer="conv9")
