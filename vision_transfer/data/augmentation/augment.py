"""Augmentation of a batch: fresh variants of each image, or a bank of fixed ones.

`config.augment` states the operations; it is hashable, and static under `jax.jit`. The conventions of its presets:

- `keras_layers`: the layers RandomFlip, RandomRotation, RandomTranslation, RandomShear (`x_factor`) and RandomZoom, in
  that order. RandomZoom has a height factor only, so it keeps the aspect ratio. Fill `wrap` has the period size.
- `image_data_generator`: Keras's `ImageDataGenerator`, where a shear of "0.2" copied from a textbook is a fifth of a
  degree. Rows and columns are zoomed separately. Fill `wrap` has the period size - 1.

Each direction is flipped with probability 1/2, shifts and angles go either way, a zoom above 1 zooms out, fill
`reflect` repeats the edge (d c b a | a b c d | d c b a), and `constant` is black. Contrast changes about the mean of
the image's grey, saturation about each pixel's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int, Key, Real, UInt32

from vision_transfer.config.own_parts import part
from vision_transfer.config.references import is_reference
from vision_transfer.config.schema import AugmentConfig
from vision_transfer.data.augmentation.affine import affine_matrices
from vision_transfer.data.augmentation.sampling import ColourParameters, draw_parameters
from vision_transfer.data.augmentation.warp import warp
from vision_transfer.data.rows import Rows, will_need

# Separates the draws of augmentation from those of dropout, which come from the same key.
AUGMENTATION_STREAM = int.from_bytes(b"augm", "big")
# Grey of red, green and blue by ITU-R BT.601, as in Pillow and torchvision.
LUMA = (0.299, 0.587, 0.114)
WHITE = 255.0


def augmentation_of(config: AugmentConfig) -> AugmentConfig | None:
    """The config, or None if it changes no image."""
    return config if is_reference(config.preset) or moves_pixels(config) or changes_colours(config) else None


def moves_pixels(config: AugmentConfig) -> bool:
    """Whether any geometric operation is on, so that images must be resampled."""
    geometry = (config.rotation, config.height_shift, config.width_shift, config.shear, config.zoom)
    return config.preset != "none" and (config.flip != "none" or bool(config.crop_scale) or any(geometry))


def changes_colours(config: AugmentConfig) -> bool:
    """Whether any colour operation is on."""
    return config.preset != "none" and any((config.brightness, config.contrast, config.saturation))


def augment_epoch(
    images: Real[Array, "batch height width channels"],
    example_ids: UInt32[Array, "batch"],
    stage_key: Key[Array, ""],
    epoch: int | Int[Array, ""],
    config: AugmentConfig,
) -> Float32[Array, "batch height width channels"]:
    """The variants that an epoch of a stage trains on, fresh or from the bank; see `augment_batch`."""
    fresh = jax.random.fold_in(stage_key, AUGMENTATION_STREAM)
    # A bank does not depend on the run's seed.
    key = jax.random.key(config.bank_seed) if config.bank else fresh
    return augment_batch(images, example_ids, key, bank_variant(epoch, config.bank), config)


@dataclass(frozen=True)
class BankRows:
    """One variant (number `variant` of a bank) of all images, computed when rows are taken."""

    images: Rows
    example_ids: UInt32[np.ndarray, "rows"]
    augmentation: AugmentConfig
    variant: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of rows, then the shape of one."""
        return self.images.shape

    @property
    def dtype(self) -> np.dtype:
        """Float32, values 0-255."""
        return np.dtype(np.float32)

    def __getitem__(self, rows: np.ndarray) -> Float32[np.ndarray, "chosen height width channels"]:
        """The variant of the images with these numbers."""
        return np.asarray(_variant(self.augmentation, self.images[rows], self.example_ids[rows], self.variant))

    def will_need(self, rows: np.ndarray) -> None:
        """Asks the system to read the images with these numbers, which are taken soon."""
        will_need(self.images, rows)


@partial(jax.jit, static_argnames="augmentation")
def _variant(augmentation: AugmentConfig, images: Array, example_ids: Array, variant: Int[Array, ""]) -> Array:
    # A bank's variants do not depend on the stage's key.
    return augment_epoch(images, example_ids, jax.random.key(0), variant, augmentation)


def bank_variant(epoch: int | Int[Array, ""], bank: int) -> int | Int[Array, ""]:
    """The variant that `epoch` (from 0) uses of a bank of `bank` fixed variants per image.

    Variant k of a bank is what `augment_batch` computes in epoch k with the bank's key. With `bank` 0 there is no bank,
    and every epoch has a variant of its own.
    """
    return epoch % bank if bank else epoch


def augment_batch(
    images: Real[Array, "batch height width channels"],
    example_ids: UInt32[Array, "batch"],
    key: Key[Array, ""],
    epoch: int | Int[Array, ""],
    config: AugmentConfig,
) -> Float32[Array, "batch height width channels"]:
    """Draws and applies one variant of each image of values 0-255; a pure function, to be traced with `config` static.

    An image's variant depends on the key of the run or bank, on the epoch or the bank's variant (from 0), its id and
    `config`, not on the rest of the batch. With preset `none`, images are only converted to float32.
    """
    if is_reference(config.preset):
        return _own_variants(images, example_ids, key, epoch, part(config.preset))
    height, width = images.shape[1:3]
    affine, colours = draw_parameters(config, key, epoch, example_ids, height, width)
    if moves_pixels(config):
        images = warp(images, affine_matrices(affine, config.preset, height, width), config)
    images = images.astype(jnp.float32)
    return jitter_colours(images, colours, config) if changes_colours(config) else images


def _own_variants(
    images: Real[Array, "batch height width channels"],
    example_ids: UInt32[Array, "batch"],
    key: Key[Array, ""],
    epoch: int | Int[Array, ""],
    augment: Callable[[Array, Array], Array],
) -> Float32[Array, "batch height width channels"]:
    """A user's function of one image and a key, applied to each image with a key of its own."""
    epoch_key = jax.random.fold_in(key, epoch)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(epoch_key, example_ids)
    return jax.vmap(augment)(images.astype(jnp.float32), keys)


def jitter_colours(
    images: Float32[Array, "batch height width channels"], colours: ColourParameters, config: AugmentConfig
) -> Float32[Array, "batch height width channels"]:
    """Changes brightness, contrast and saturation of each image by its factors; each operation clips to 0-255.

    The formulas are torchvision's `ColorJitter` (`adjust_brightness`, `adjust_contrast`, `adjust_saturation`), which
    are those of Pillow's `ImageEnhance`; the order is fixed, torchvision's is random. An operation whose width in
    `config` is 0 is left out.
    """
    brightness, contrast, saturation = (factor[:, None, None, None] for factor in colours)
    if config.brightness:
        images = jnp.clip(images * brightness, 0, WHITE)
    if config.contrast:
        mean = grey(images.mean((1, 2), keepdims=True))
        images = jnp.clip(mean + contrast * (images - mean), 0, WHITE)
    if config.saturation:
        pale = grey(images)
        images = jnp.clip(pale + saturation * (images - pale), 0, WHITE)
    return images


def grey(images: Float32[Array, "batch height width channels"]) -> Float32[Array, "batch height width 1"]:
    """Brightness of each pixel: of red, green and blue by `LUMA`; of any other channels their mean."""
    if images.shape[-1] != len(LUMA):
        return images.mean(-1, keepdims=True)
    # As a matrix product: otherwise XLA on a CPU recomputes the images for every channel (8 times slower).
    luma = jnp.asarray(LUMA, jnp.float32)[:, None]
    return jnp.matmul(images, luma, precision=jax.lax.Precision.HIGHEST)
