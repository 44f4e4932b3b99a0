"""Convolution of any stride and padding."""

from jax import lax
from jaxtyping import Array, Float

from vision_transfer.models.ops.windows import Strides, WindowPadding, margins_of


def strided_convolution(
    images: Float[Array, "batch height width inputs"],
    kernel: Float[Array, "size size inputs outputs"],
    *,
    strides: Strides = (1, 1),
    padding: WindowPadding = "same",
    precision: lax.Precision | None = lax.Precision.HIGHEST,
) -> Float[Array, "batch new_height new_width outputs"]:
    """Convolution without bias."""
    return lax.conv_general_dilated(
        images,
        kernel,
        strides,
        margins_of(padding, images.shape[1:3], kernel.shape[:2], strides),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision,
    )
