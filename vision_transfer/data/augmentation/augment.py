"""Augmentation of a batch, as the training step and the bank of variants use it."""

import jax.numpy as jnp
from jaxtyping import Array, Float32, Int, Key, Real, UInt32

from vision_transfer.data.augmentation.affine import affine_matrices
from vision_transfer.data.augmentation.colour import jitter_colours
from vision_transfer.data.augmentation.config import AugmentConfig
from vision_transfer.data.augmentation.sampling import draw_parameters
from vision_transfer.data.augmentation.warp import warp


def augment_batch(
    images: Real[Array, "batch height width channels"],
    example_ids: UInt32[Array, "batch"],
    key: Key[Array, ""],
    epoch: int | Int[Array, ""],
    config: AugmentConfig,
) -> Float32[Array, "batch height width channels"]:
    """Draws and applies one variant of each image: pure, to be traced with `config` static.

    An image's variant depends on `key`, `epoch`, its id and `config`, not on the rest of the batch. Fresh
    augmentation passes the run's key and the epoch; a bank passes its own key and the variant that `bank_variant`
    gives.

    Args:
        images: `(batch, height, width, channels)` uint8 or float32, 0-255.
        example_ids: `(batch,)` uint32, each image's number in its data set.
        key: random key of the run, or of the bank.
        epoch: epoch, or variant of the bank, from 0.
        config: what to do; with preset `none` images only become float32.

    Returns:
        `(batch, height, width, channels)` float32, 0-255.
    """
    height, width = images.shape[1:3]
    affine, colours = draw_parameters(config, key, epoch, example_ids, height, width)
    if config.moves_pixels:
        images = warp(images, affine_matrices(affine, config.preset, height, width), config)
    images = images.astype(jnp.float32)
    return jitter_colours(images, colours, config) if config.changes_colours else images


def bank_variant(epoch: int | Int[Array, ""], bank: int) -> int | Int[Array, ""]:
    """The variant that `epoch` (from 0) uses of a bank of `bank` fixed variants per image.

    Variant k of a bank is what `augment_batch` makes in epoch k of the bank's key. With `bank` 0 there is no bank
    and every epoch is a variant of its own.
    """
    return epoch % bank if bank else epoch
