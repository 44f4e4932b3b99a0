"""Convolution of any stride and padding."""

from jax import lax
from jaxtyping import Array, Float


def strided_convolution(
    images: Float[Array, "batch height width inputs"],
    kernel: Float[Array, "size size inputs outputs"],
    *,
    strides: int,
    padding: tuple[tuple[int, int], ...],
    precision: lax.Precision | None = lax.Precision.HIGHEST,
) -> Float[Array, "batch new_height new_width outputs"]:
    """Convolution without bias."""
    return lax.conv_general_dilated(
        images, kernel, (strides, strides), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), precision=precision
    )
