"""Convolution with bias, ReLU and pooling: Winograd's method where a CPU gains by it, XLA's convolution elsewhere.

The choice depends on shapes and on the platform a program is lowered for, so that one exported program serves all.
"""

from typing import Literal

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from vision_transfer.models.ops.epilogue import Epilogue
from vision_transfer.models.ops.im2col import Placement, products_convolution
from vision_transfer.models.ops.pooling import max_pool
from vision_transfer.models.ops.tiling import Padding, best_tile
from vision_transfer.models.ops.winograd import Operation, winograd_convolution
from vision_transfer.models.ops.winograd_transforms import KERNEL_SIZE, transform_kernel

__all__ = ["convolution", "max_pool", "prepare_kernel", "uses_winograd"]

Implementation = Literal["auto", "lax", "winograd"]
# Fewer input channels leave too little work in the products (a first layer of 3 channels is faster by XLA).
LEAST_CHANNELS = 16
# Smaller maps fill too little of a tile.
LEAST_OUTPUTS = 5
# With fewer channels than this a map must be larger. On blank backgrounds, as MNIST's, pre-activations are exactly zero
# at a fresh start; Winograd leaves ±1e-7 there, so that ReLU's gradient opens where Keras's is shut, and the first
# losses of a training differ by up to 1.7 %. On small maps little is lost by avoiding that (15.6 ms against 11.9 for
# MNIST's second layer and batch 64); on large ones Winograd is 2.7 times as fast, and photos have no exact zeros.
FEW_CHANNELS = 64
LEAST_OUTPUTS_WITH_FEW_CHANNELS = 32


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
    """Convolution of stride 1, bias, then where asked for ReLU and 2×2 max-pooling.

    Args:
        images: the input.
        kernel: height, width, input channels, output channels.
        bias: one per output channel.
        padding: "valid" or "same" (zeros).
        relu: whether a ReLU follows.
        pool: whether a 2×2 max-pooling of stride 2 follows; an odd last row or column is left out.
        precision: of the products, for XLA's convolution; Winograd's products are float32.
        prepared: `prepare_kernel(kernel, …)`; only where the program runs on a CPU.
        implementation: "auto" chooses from shapes and platform.
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

    own_method = images.dtype == jnp.float32 and _is_known(images.shape)
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
    """The kernel as Winograd's products use it, for a layer that stays as it is: 4 or 5.4 times the kernel's size."""
    return transform_kernel(kernel, best_tile(image_shape, _margin(padding)[0]))


def uses_winograd(image_shape: tuple[int, ...], kernel_shape: tuple[int, ...], padding: Padding, platform: str) -> bool:
    """Whether `convolution` takes Winograd's method for these shapes (NHWC, HWIO) on a platform such as "cpu"."""
    if platform != "cpu" or tuple(kernel_shape[:2]) != (KERNEL_SIZE, KERNEL_SIZE) or not _is_known(image_shape):
        return False
    outputs = [extent + sum(_margin(padding)) - KERNEL_SIZE + 1 for extent in image_shape[1:3]]
    channels = min(kernel_shape[2:])
    least_outputs = LEAST_OUTPUTS_WITH_FEW_CHANNELS if channels < FEW_CHANNELS else LEAST_OUTPUTS
    return min(outputs) >= least_outputs and channels >= LEAST_CHANNELS


def _is_known(image_shape: tuple[int, ...]) -> bool:
    """Whether chunks can be planned: no symbolic sizes, as exported programs have, and not an empty batch."""
    return all(isinstance(extent, int) and extent > 0 for extent in image_shape)


def _margin(padding: Padding, size: int = KERNEL_SIZE) -> tuple[int, int]:
    """Zeros before and behind an axis."""
    return ((size - 1) // 2, size // 2) if padding == "same" else (0, 0)
