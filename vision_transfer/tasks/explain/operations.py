"""Convolution, padding, stride and pooling on a small image, one array for each: for teaching."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Float32

# Stride of the strided convolution, and size of the pooled windows.
STEP = 2


@dataclass(frozen=True)
class Operation:
    """What became of the image.

    Attributes:
        name: for the reader.
        output: `(new_height, new_width) float32`.
    """

    name: str
    output: Float32[np.ndarray, "new_height new_width"]


def operations(
    image: Float[np.ndarray, "height width"], kernel: Float[np.ndarray, "kernel_height kernel_width"]
) -> list[Operation]:
    """The image convolved without padding, with zeros around it, in steps of 2; its maxima and means of 2×2 pixels.

    As in all networks, the kernel is not flipped (a correlation), and what fills no window is left out.

    Args:
        image: one channel, at least as large as the kernel.
        kernel: of odd height and width.
    """
    values = jnp.asarray(image, jnp.float32)[None, :, :, None]
    weights = jnp.asarray(kernel, jnp.float32)[:, :, None, None]

    def convolve(padding: str, stride: int) -> Array:
        return lax.conv_general_dilated(
            values,
            weights,
            window_strides=(stride, stride),
            padding=padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=lax.Precision.HIGHEST,
        )

    window = (1, STEP, STEP, 1)
    maxima = lax.reduce_window(values, -jnp.inf, lax.max, window, window, "VALID")
    means = lax.reduce_window(values, 0.0, lax.add, window, window, "VALID") / STEP**2
    outputs = {
        "convolution, no padding (valid)": convolve("VALID", 1),
        "convolution, zeros around it (same)": convolve("SAME", 1),
        f"convolution, no padding, stride {STEP}": convolve("VALID", STEP),
        f"max-pooling, {STEP}×{STEP}": maxima,
        f"average-pooling, {STEP}×{STEP}": means,
    }
    return [Operation(name, np.asarray(output, np.float32)[0, :, :, 0]) for name, output in outputs.items()]
