"""Convolution of any stride and padding, without bias: matrix products on a CPU, XLA's convolution elsewhere."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from vision_transfer.models.ops.im2col import NO_EPILOGUE, SMALL_PATCH, Placement, products_convolution
from vision_transfer.models.ops.windows import (
    Margins,
    Strides,
    WindowPadding,
    is_known,
    margins_of,
    output_extents,
    pad_map,
    window_elements_at,
)


def strided_convolution(
    images: Float[Array, "batch height width inputs"],
    kernel: Float[Array, "kernel_height kernel_width inputs outputs"],
    *,
    strides: Strides = (1, 1),
    padding: WindowPadding = "same",
    precision: lax.Precision | None = lax.Precision.HIGHEST,
) -> Float[Array, "batch new_height new_width outputs"]:
    """Convolution without bias; `padding` as in `margins_of`, `precision` for XLA's convolution."""
    margins = margins_of(padding, images.shape[1:3], kernel.shape[:2], strides)

    def by_lax(images: Array, kernel: Array) -> Array:
        return lax.conv_general_dilated(
            images, kernel, strides, margins, dimension_numbers=("NHWC", "HWIO", "NHWC"), precision=precision
        )

    def by_one_product(images: Array, kernel: Array) -> Array:
        extents = output_extents(margins, images.shape[1:3], kernel.shape[:2], strides)
        windows = window_elements_at(pad_map(images, margins), (0, 0), strides, extents)
        rows = windows.reshape(-1, kernel.shape[2])
        products = lax.dot(rows, kernel.reshape(kernel.shape[2:]), precision=lax.Precision.HIGHEST)
        return products.reshape(*windows.shape[:3], -1)

    def by_products(images: Array, kernel: Array) -> Array:
        if kernel.shape[0] * kernel.shape[1] * kernel.shape[2] <= SMALL_PATCH and strides[1] > 1:
            merged, merged_kernel = _merge_columns(pad_map(images, margins), kernel, strides[1])
            return _operate(merged, merged_kernel, ((0, 0), (0, 0)), (strides[0], 1))
        return _operate(images, kernel, margins, strides)

    if images.dtype != jnp.float32:
        return by_lax(images, kernel)
    if kernel.shape[:2] == (1, 1):
        return lax.platform_dependent(images, kernel, cpu=by_one_product, default=by_lax)
    if not is_known(images.shape):
        return by_lax(images, kernel)
    return lax.platform_dependent(images, kernel, cpu=by_products, default=by_lax)


def _operate(images: Array, kernel: Array, margins: Margins, strides: Strides) -> Array:
    bias = jnp.zeros(kernel.shape[-1:], kernel.dtype)
    # jax's types for custom_vjp lose an argument
    placement = Placement(margins, NO_EPILOGUE, strides)
    return products_convolution(placement, images, kernel, bias)  # pyright: ignore[reportCallIssue]


def _merge_columns(padded: Array, kernel: Array, stride: int) -> tuple[Array, Array]:
    """The same convolution with `stride` columns as one of more channels, and no stride across.

    Patches of few channels are then copied in longer pieces: 0.85 ms instead of 1.2 for 224×224×3→32 of 3×3.
    """
    batch, height, width, inputs = padded.shape
    rows, columns, _, outputs = kernel.shape
    windows = (width - columns) // stride + 1
    merged_columns = -(-columns // stride)
    needed = (windows - 1 + merged_columns) * stride
    images = pad_map(padded, ((0, 0), (0, needed - width)))
    widened = jnp.pad(kernel, ((0, 0), (0, merged_columns * stride - columns), (0, 0), (0, 0)))
    return (
        images.reshape(batch, height, needed // stride, stride * inputs),
        widened.reshape(rows, merged_columns, stride * inputs, outputs),
    )
