"""Colour jitter: brightness, contrast and saturation, each example with factors of its own.

The formulas are torchvision's `ColorJitter` (`adjust_brightness`, `adjust_contrast`, `adjust_saturation`), which are
those of Pillow's `ImageEnhance`; the order is fixed (brightness, contrast, saturation), where torchvision's is random.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32

from vision_transfer.data.augmentation.config import AugmentConfig
from vision_transfer.data.augmentation.sampling import ColourParameters

# Grey of red, green and blue by ITU-R BT.601, as Pillow and torchvision take it.
LUMA = (0.299, 0.587, 0.114)
WHITE = 255.0


def jitter_colours(
    images: Float32[Array, "batch height width channels"], colours: ColourParameters, config: AugmentConfig
) -> Float32[Array, "batch height width channels"]:
    """Changes the colours of each image by its factors; every operation that is on clips to 0-255.

    Args:
        images: `(batch, height, width, channels)` float32, 0-255.
        colours: factors, `(batch,)` each.
        config: an operation whose width is 0 is left out.
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


def grey(
    images: Float32[Array, "batch height width channels"],
) -> Float32[Array, "batch height width 1"]:
    """Brightness of each pixel: of red, green and blue by `LUMA`; of any other channels their mean."""
    if images.shape[-1] != len(LUMA):
        return images.mean(-1, keepdims=True)
    # As a matrix product: XLA on a CPU would otherwise repeat what made the images for every channel (8 times slower).
    luma = jnp.asarray(LUMA, jnp.float32)[:, None]
    return jnp.matmul(images, luma, precision=jax.lax.Precision.HIGHEST)
