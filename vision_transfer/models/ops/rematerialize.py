"""How a deep network opens on a CPU: the first layer's output, the largest of all, is made image by image.

A first convolution of 3 channels costs little, and its output is large: 8.3 MB an image of 180 pixels for VGG16's, more
than all of its other layers' that the backward pass needs. So it is made for one image, taken up by the second
convolution and forgotten, and the backward pass computes it again.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from vision_transfer.models.ops.convolution import LEAST_CHANNELS, uses_winograd
from vision_transfer.models.ops.microbatch import map_images
from vision_transfer.models.ops.tiling import Padding
from vision_transfer.models.ops.winograd import WINNERS

# An output of fewer bytes than this stays in a CPU's cache for a few images anyway.
LEAST_BYTES = 4 << 20

Convolve = Callable[[Float[Array, "batch height width channels"]], Float[Array, "batch height width channels"]]


def is_opening(
    images: Float[Array, "batch height width channels"],
    output_shape: tuple[int, ...],
    next_kernel_shape: tuple[int, ...],
    next_padding: Padding,
) -> bool:
    """Whether a convolution of `images` is cheap, its output large, and the next one takes Winograd's method."""
    return (
        images.dtype == jnp.float32
        and images.shape[-1] < LEAST_CHANNELS
        and uses_winograd(output_shape, next_kernel_shape, next_padding, "cpu")
        and math.prod(output_shape[1:]) * images.dtype.itemsize >= LEAST_BYTES
    )


def chain(first: Convolve, second: Convolve, images: Float[Array, "batch height width channels"]) -> Array:
    """`second(first(images))`, image by image where the program runs on a CPU.

    Args:
        first: cheap, with a large output.
        second: pooled, so that its winners suffice for its gradient.
        images: the input of the first.
    """

    def both(group: Array) -> Array:
        return second(first(group))

    def by_image(images: Array) -> Array:
        kept = jax.checkpoint_policies.save_only_these_names(WINNERS)
        return map_images(jax.checkpoint(both, prevent_cse=False, policy=kept), 1, images)

    return lax.platform_dependent(images, cpu=by_image, default=both)
