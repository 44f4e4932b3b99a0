"""Max-pooling whose gradient goes to the first of equal maxima, as in Keras and cuDNN, and is fast on a CPU.

On a CPU XLA's own gradient (select-and-scatter) is a scalar loop, so there the windows are strided slices, the forward
pass keeps one byte per output that names the winner, and the gradient is written by hand. Elsewhere XLA's
`reduce_window` and its gradient do the same.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, UInt8


def max_pool(
    images: Float[Array, "batch height width channels"], size: int
) -> Float[Array, "batch height//size width//size channels"]:
    """Maxima of disjoint size×size windows; rows and columns that fill no window are left out.

    The gradient of a window goes to its first maximum in row-major order. (`reshape().max()` would split it.)
    """
    return lax.platform_dependent(images, cpu=partial(_pool_by_slices, size), default=partial(_pool_by_windows, size))


def window_maxima(elements: Sequence[Array]) -> Array:
    """The largest element of every window, from `window_elements` or alike."""
    largest = elements[0]
    for element in elements[1:]:
        largest = jnp.maximum(largest, element)
    return largest


def window_winners(elements: Sequence[Array], rectified: bool = False) -> UInt8[Array, "..."]:
    """Index of the first of the largest elements of every window.

    Args:
        elements: one array per place of the window.
        rectified: whether the elements are a ReLU's outputs: windows of zeros then get `len(elements)`, which is no
            place, since the ReLU lets no gradient through.
    """
    largest, winners = elements[0], jnp.zeros(elements[0].shape, jnp.uint8)
    for place, element in enumerate(elements[1:], 1):
        winners = jnp.where(element > largest, jnp.uint8(place), winners)
        largest = jnp.maximum(largest, element)
    return jnp.where(largest > 0, winners, jnp.uint8(len(elements))) if rectified else winners


def window_elements(size: int, images: Array) -> list[Array]:
    """The size² elements of every window in row-major order, each (batch, height//size, width//size, channels)."""
    height, width = (extent // size * size for extent in images.shape[1:3])
    return [images[:, row:height:size, column:width:size] for row in range(size) for column in range(size)]


def route_to_winners(
    size: int, gradient: Array, winners: UInt8[Array, "..."], height: int, width: int
) -> Float[Array, "batch {height} {width} channels"]:
    """The gradient of pooled outputs, given to the winner of each window; zeros elsewhere."""
    batch, down, across, channels = gradient.shape
    places = jnp.arange(size * size, dtype=jnp.uint8).reshape(size, 1, size, 1)
    routed = jnp.where(winners[:, :, None, :, None] == places, gradient[:, :, None, :, None], 0)
    routed = routed.reshape(batch, down * size, across * size, channels)
    return jnp.pad(routed, ((0, 0), (0, height - down * size), (0, width - across * size), (0, 0)))


def _pool_by_windows(size: int, images: Array) -> Array:
    window = (1, size, size, 1)
    return lax.reduce_window(images, -jnp.inf, lax.max, window, window, "VALID")


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _pool_by_slices(size: int, images: Array) -> Array:
    return window_maxima(window_elements(size, images))


def _pool_forward(size: int, images: Array) -> tuple[Array, tuple[Array, tuple[int, ...]]]:
    elements = window_elements(size, images)
    return window_maxima(elements), (window_winners(elements), images.shape[1:3])


def _pool_backward(size: int, residuals: tuple[Array, tuple[int, ...]], gradient: Array) -> tuple[Array]:
    winners, (height, width) = residuals
    return (route_to_winners(size, gradient, winners, height, width),)


_pool_by_slices.defvjp(_pool_forward, _pool_backward)
