"""VGG16 with the ImageNet weights against Keras's activations at every pool, for photos at three sizes."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vision_transfer.data.images.resize import resize_bilinear
from vision_transfer.models.backbones.registry import backbone_rows
from vision_transfer.models.network import Network, apply
from vision_transfer.models.preprocessing import preprocess

SIZES = (150, 180, 224)
# Keras's names in the reference, and ours.
MODES = {"caffe": "caffe", "rescale255": "rescale"}
POOLS = tuple(f"block{block}_pool" for block in range(1, 6))
TOLERANCE = 1e-4
# Of the last maps, the reference keeps each 32nd channel.
CHANNEL_STRIDE = 32
# The one photo that lies in this repository; the others are in $VISION_TRANSFER_DATA.
SHIPPED = "images/cat_chelsea.jpg"


@pytest.fixture(scope="module")
def photos(reference, reference_folder):
    """Positions in the reference, and files: all four where `$VISION_TRANSFER_DATA` has them, else the shipped one."""
    names = list(reference("vgg16_activations")["photos"])
    folder = os.environ.get("VISION_TRANSFER_DATA")
    if folder:
        return {number: Path(folder) / name for number, name in enumerate(names)}
    return {names.index(SHIPPED): reference_folder / Path(SHIPPED).name}


def activations(params, images):
    """Outputs of all pools for images in every mode, `(modes, images, ...)` by name; one program."""
    network = Network(backbone_rows("vgg16"), (), images.shape[1:])

    @jax.jit
    def all_pools(params, values):
        outputs, start = {}, "block1_conv1"
        for block, pool in enumerate(POOLS, start=1):
            values = apply(network, {"params": params}, values, start=start, stop=pool)
            outputs[pool], start = values.reshape(len(MODES), -1, *values.shape[1:]), f"block{block + 1}_conv1"
        return outputs

    batch = jnp.concatenate([preprocess(jnp.asarray(images), mode) for mode in MODES.values()])
    return jax.tree.map(np.asarray, all_pools(params, batch))


def relative_error(found, expected):
    """Largest difference as a share of the largest value."""
    return np.abs(np.asarray(found) - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("size", SIZES)
def test_activations_are_keras_s(vgg16_params, reference, photos, decode_as_tensorflow, size):
    images = np.stack([resize_bilinear(decode_as_tensorflow(path), size, size) for path in photos.values()])
    expected, numbers = reference("vgg16_activations"), list(photos)
    for pool, by_mode in activations(vgg16_params, images).items():
        for name, found in zip(MODES, by_mode, strict=True):
            case = f"{name}_{size}_{pool}"
            assert relative_error(found[:, :3, :3, :8], expected[f"{case}_corner"][numbers]) < TOLERANCE, case
            assert relative_error(found.mean((1, 2, 3)), expected[f"{case}_mean"][numbers]) < TOLERANCE, case
            assert relative_error(found.std((1, 2, 3)), expected[f"{case}_std"][numbers]) < TOLERANCE, case
            if case in expected:
                assert relative_error(found[..., ::CHANNEL_STRIDE], expected[case][numbers]) < TOLERANCE, case
