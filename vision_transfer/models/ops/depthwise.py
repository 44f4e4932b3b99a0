"""Depthwise convolution."""

from jax import lax
from jaxtyping import Array, Float


def depthwise_convolution(
    images: Float[Array, "batch height width channels"],
    kernel: Float[Array, "size size channels 1"],
    *,
    strides: int,
    padding: tuple[tuple[int, int], ...],
    precision: lax.Precision | None = lax.Precision.HIGHEST,
) -> Float[Array, "batch new_height new_width channels"]:
    """Convolution of each channel by itself."""
    return lax.conv_general_dilated(
        images,
        kernel.swapaxes(2, 3),
        (strides, strides),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=images.shape[-1],
        precision=precision,
    )
