"""Convolution with bias, ReLU and pooling: Winograd's method where it is faster on a CPU, XLA's convolution elsewhere.

The choice depends on shapes and on the platform a program is lowered for, so that one exported program serves all.

`chain` is for the first two convolutions of a deep network on a CPU. The first, of 3 channels, costs little, but its
output is large: 8.3 MB per image of 180 pixels for VGG16, more than the outputs of all other layers that the backward
pass needs. So it is computed for one image at a time, consumed by the second convolution and discarded, and the
backward pass computes it again.
"""

import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from vision_transfer.models.ops.im2col import Placement, products_convolution
from vision_transfer.models.ops.microbatch import map_images
from vision_transfer.models.ops.pooling import Epilogue, max_pool
from vision_transfer.models.ops.tiling import Padding, best_tile
from vision_transfer.models.ops.windows import is_known
from vision_transfer.models.ops.winograd import WINNERS, Operation, winograd_convolution
from vision_transfer.models.ops.winograd_transforms import KERNEL_SIZE, transform_kernel

__all__ = ["chain", "convolution", "is_chained", "max_pool", "prepare_kernel", "uses_winograd"]

Implementation = Literal["auto", "lax", "winograd"]
Convolve = Callable[[Float[Array, "batch height width channels"]], Float[Array, "batch height width channels"]]
# With fewer channels the products are too small a part of the work (XLA is faster for a first layer of 3 channels).
LEAST_CHANNELS = 16
# Smaller maps fill too small a part of a tile.
LEAST_OUTPUTS = 5
# With fewer channels than this a map must be larger. On blank backgrounds such as MNIST's, pre-activations are exactly
# zero with fresh parameters. Winograd gives ±1e-7 there, so gradients pass the ReLU where they do not in Keras, and the
# first losses differ by up to 1.7 %. Avoiding that costs little on small maps (15.6 ms instead of 11.9 for MNIST's
# second layer and batch 64); on large ones Winograd is 2.7 times as fast, and photos have no exact zeros.
FEW_CHANNELS = 64
LEAST_OUTPUTS_WITH_FEW_CHANNELS = 32
# The output of a first convolution that is smaller, in bytes, stays in a CPU's cache for a few images anyway.
LEAST_CHAINED_BYTES = 4 << 20


def convolution(
    images: Float[Array, "batch height width inputs"],
    kernel: Float[Array, "kernel_height kernel_width inputs outputs"],
    bias: Float[Array, "outputs"],
    *,
    padding: Padding,
    relu: bool,
    pool: bool,
    precision: lax.Precision | None = lax.Precision.HIGHEST,
    prepared: Float[Array, "products inputs outputs"] | None = None,
    implementation: Implementation = "auto",
) -> Float[Array, "batch new_height new_width outputs"]:
    """Convolution of stride 1 with bias, optionally followed by ReLU and 2×2 max-pooling of stride 2.

    Pooling leaves out an odd last row or column. `precision` is that of XLA's convolution; Winograd's products are
    float32. `prepared` is `prepare_kernel(kernel, …)`, for programs that run on a CPU only. The implementation "auto"
    depends on shapes and platform.
    """
    epilogue = Epilogue(relu, pool)

    def by_lax(images: Array, kernel: Array, bias: Array) -> Array:
        outputs = lax.conv_general_dilated(
            images,
            kernel,
            window_strides=(1, 1),
            padding=padding.upper(),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=precision,
        )
        return epilogue.apply(outputs + bias)

    own_method = images.dtype == jnp.float32 and is_known(images.shape)
    if implementation == "lax" or (implementation == "auto" and not own_method):
        return by_lax(images, kernel, bias)
    margins = (_margin(padding, kernel.shape[0]), _margin(padding, kernel.shape[1]))
    if implementation == "auto" and not uses_winograd(images.shape, kernel.shape, padding, "cpu"):
        placement = Placement(margins, epilogue)

        def by_products(images: Array, kernel: Array, bias: Array) -> Array:
            # jax's types for custom_vjp lose an argument
            return products_convolution(placement, images, kernel, bias)  # pyright: ignore[reportCallIssue]

        return lax.platform_dependent(images, kernel, bias, cpu=by_products, default=by_lax)
    before = margins[0][0]
    operation = Operation(best_tile(images.shape, before), before, epilogue)

    def by_winograd(images: Array, kernel: Array, bias: Array) -> Array:
        return winograd_convolution(operation, images, kernel, bias, prepared)  # pyright: ignore[reportCallIssue]

    if implementation == "winograd" or prepared is not None:
        return by_winograd(images, kernel, bias)
    return lax.platform_dependent(images, kernel, bias, cpu=by_winograd, default=by_lax)


def prepare_kernel(
    kernel: Float[Array, "3 3 inputs outputs"], image_shape: tuple[int, ...], padding: Padding
) -> Float[Array, "products inputs outputs"]:
    """The kernel in the form that Winograd's products use, for a frozen layer; 4 or 5.4 times the kernel's size."""
    return transform_kernel(kernel, best_tile(image_shape, _margin(padding)[0]))


def uses_winograd(image_shape: tuple[int, ...], kernel_shape: tuple[int, ...], padding: Padding, platform: str) -> bool:
    """Whether `convolution` uses Winograd's method for these shapes (NHWC, HWIO) on a platform such as "cpu"."""
    if platform != "cpu" or tuple(kernel_shape[:2]) != (KERNEL_SIZE, KERNEL_SIZE) or not is_known(image_shape):
        return False
    outputs = [extent + sum(_margin(padding)) - KERNEL_SIZE + 1 for extent in image_shape[1:3]]
    channels = min(kernel_shape[2:])
    least_outputs = LEAST_OUTPUTS_WITH_FEW_CHANNELS if channels < FEW_CHANNELS else LEAST_OUTPUTS
    return min(outputs) >= least_outputs and channels >= LEAST_CHANNELS


def is_chained(
    images: Float[Array, "batch height width channels"],
    output_shape: tuple[int, ...],
    next_kernel_shape: tuple[int, ...],
    next_padding: Padding,
) -> bool:
    """Whether a convolution of `images` is cheap, its output large, and Winograd's method used for the next one."""
    return (
        images.dtype == jnp.float32
        and images.shape[-1] < LEAST_CHANNELS
        and uses_winograd(output_shape, next_kernel_shape, next_padding, "cpu")
        and math.prod(output_shape[1:]) * images.dtype.itemsize >= LEAST_CHAINED_BYTES
    )


def chain(first: Convolve, second: Convolve, images: Float[Array, "batch height width channels"]) -> Array:
    """`second(first(images))`, image by image on a CPU; `second` is pooled, so its winners suffice for its gradient."""

    def both(group: Array) -> Array:
        return second(first(group))

    def by_image(images: Array) -> Array:
        kept = jax.checkpoint_policies.save_only_these_names(WINNERS)
        return map_images(jax.checkpoint(both, prevent_cse=False, policy=kept), 1, images)

    return lax.platform_dependent(images, cpu=by_image, default=both)


def _margin(padding: Padding, size: int = KERNEL_SIZE) -> tuple[int, int]:
    """Numbers of zeros before and after an axis."""
    return ((size - 1) // 2, size // 2) if padding == "same" else (0, 0)
