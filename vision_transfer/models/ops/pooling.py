"""Max-pooling whose gradient goes to the first of equal maxima, as in Keras and cuDNN, and is fast on a CPU.

On a CPU XLA's own gradient (select-and-scatter) is a scalar loop. There, windows are strided slices, the forward pass
keeps one byte per output for the place of the maximum (the winner), and the gradient is written by hand. Elsewhere
XLA's `reduce_window` and its gradient give the same. `Epilogue` is the ReLU and the pooling after a convolution.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, UInt8

from vision_transfer.models.ops.windows import WindowPadding, margins_of, output_extents, window_elements_at

# Size and stride of the pooling that a convolution can include.
POOL = 2


def max_pool(
    images: Float[Array, "batch height width channels"], size: int
) -> Float[Array, "batch height//size width//size channels"]:
    """Maxima of disjoint size×size windows; rows and columns that fill no window are left out.

    The gradient of a window goes to its first maximum in row-major order. (`reshape().max()` would split it.)
    """
    return lax.platform_dependent(images, cpu=partial(_pool_by_slices, size), default=partial(_pool_by_windows, size))


def overlapping_max_pool(
    images: Float[Array, "batch height width channels"], size: int, strides: int, padding: WindowPadding
) -> Float[Array, "batch new_height new_width channels"]:
    """Maxima of size×size windows at every `strides` rows and columns; what is padded never wins.

    The gradient of a window goes to its first maximum in row-major order.
    """
    margins = margins_of(padding, images.shape[1:3], (size, size), (strides, strides))
    padded = jnp.pad(images, ((0, 0), *margins, (0, 0)), constant_values=-jnp.inf)

    def by_windows(padded: Array) -> Array:
        return lax.reduce_window(padded, -jnp.inf, lax.max, (1, size, size, 1), (1, strides, strides, 1), "VALID")

    return lax.platform_dependent(padded, cpu=partial(_overlapping_by_slices, size, strides), default=by_windows)


def average_pool(
    images: Float[Array, "batch height width channels"], size: int
) -> Float[Array, "batch height//size width//size channels"]:
    """Means of disjoint size×size windows; rows and columns that fill no window are left out."""
    elements = window_elements(size, images)
    return sum(elements[1:], elements[0]) / len(elements)


def window_maxima(elements: Sequence[Array]) -> Array:
    """The largest element of each window, from the elements as `window_elements` gives them."""
    largest = elements[0]
    for element in elements[1:]:
        largest = jnp.maximum(largest, element)
    return largest


def window_winners(elements: Sequence[Array], rectified: bool = False) -> UInt8[Array, "..."]:
    """Index of the first of the largest elements of each window.

    Windows of zeros get the index `len(elements)`, which is no place, if the elements are `rectified` outputs: the ReLU
    lets no gradient through there.
    """
    largest, winners = elements[0], jnp.zeros(elements[0].shape, jnp.uint8)
    for place, element in enumerate(elements[1:], 1):
        winners = jnp.where(element > largest, jnp.uint8(place), winners)
        largest = jnp.maximum(largest, element)
    return jnp.where(largest > 0, winners, jnp.uint8(len(elements))) if rectified else winners


def window_elements(size: int, images: Array) -> list[Array]:
    """The size² elements of each window in row-major order, each (batch, height//size, width//size, channels)."""
    height, width = (extent // size * size for extent in images.shape[1:3])
    return [images[:, row:height:size, column:width:size] for row in range(size) for column in range(size)]


def route_to_winners(
    size: int, gradient: Array, winners: UInt8[Array, "..."], height: int, width: int
) -> Float[Array, "batch {height} {width} channels"]:
    """The gradient of pooled outputs, routed to the winner of each window; zeros elsewhere."""
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


def _window_slices(size: int, strides: int, images: Array) -> list[Array]:
    """The elements of each window by their place in it, for windows that may overlap."""
    sizes, steps = (size, size), (strides, strides)
    extents = output_extents(((0, 0), (0, 0)), images.shape[1:3], sizes, steps)
    places = [(row, column) for row in range(size) for column in range(size)]
    return [window_elements_at(images, place, steps, extents) for place in places]


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _overlapping_by_slices(size: int, strides: int, images: Array) -> Array:
    return window_maxima(_window_slices(size, strides, images))


def _overlapping_forward(size: int, strides: int, images: Array) -> tuple[Array, tuple[Array, tuple[int, ...]]]:
    elements = _window_slices(size, strides, images)
    return window_maxima(elements), (window_winners(elements), images.shape)


def _overlapping_backward(
    size: int, strides: int, residuals: tuple[Array, tuple[int, ...]], gradient: Array
) -> tuple[Array]:
    winners, shape = residuals
    _, route = jax.vjp(partial(_window_slices, size, strides), jnp.zeros(shape, gradient.dtype))
    return route([jnp.where(winners == place, gradient, 0) for place in range(size * size)])


_overlapping_by_slices.defvjp(_overlapping_forward, _overlapping_backward)
_pool_by_slices.defvjp(_pool_forward, _pool_backward)


@dataclass(frozen=True)
class Epilogue:
    """Whether a ReLU and then a 2×2 max-pooling follow a convolution, in the tile or chunk that was just computed."""

    relu: bool
    pool: bool

    def rectify(self, values: Array) -> Array:
        """The ReLU, if any."""
        # the gradient of `jnp.maximum` at 0 is a half, that of a ReLU 0
        return jax.nn.relu(values) if self.relu else values

    def apply(self, values: Array) -> Array:
        """ReLU and pooling, differentiable."""
        values = self.rectify(values)
        return max_pool(values, POOL) if self.pool else values

    def finish(self, values: Array, keep: bool) -> tuple[Array, Array | None]:
        """ReLU, pooling and, if `keep`, what `unfinish` needs: the winners of windows, or the rectified outputs."""
        values = self.rectify(values)
        if not self.pool:
            return values, values if keep and self.relu else None
        # Without the barrier XLA computes the convolution's last step again for each element of a window.
        elements = window_elements(POOL, lax.optimization_barrier(values))
        return window_maxima(elements), window_winners(elements, self.relu) if keep else None

    def unfinish(self, gradient: Array, kept: Array | None, height: int, width: int) -> Array:
        """Gradient of the convolution's outputs, `height` by `width`, from the gradient of the outputs of `finish`."""
        if self.pool and kept is not None:
            return route_to_winners(POOL, gradient, kept, height, width)
        return gradient if kept is None else jnp.where(kept > 0, gradient, 0)

    def bias_gradient(self, gradient: Array, kept: Array | None) -> Array:
        """The sum of `unfinish` over images and positions."""
        if kept is not None:
            passes = kept < POOL * POOL if self.pool else kept > 0
            gradient = jnp.where(passes, gradient, 0)
        return jnp.sum(gradient, (0, 1, 2))
