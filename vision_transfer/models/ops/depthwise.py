"""Depthwise convolution: a sum of shifted products with its own gradients on a CPU, XLA's convolution elsewhere.

On a CPU XLA computes grouped convolutions one channel at a time (JAX issue 23713). Here an output is a sum of as many
products as the kernel has elements, one loop that XLA vectorises over channels, and that takes along what follows it
element by element: batch norm, ReLU. What precedes it, it takes into the padding. Neither needs an argument here.
"""

from dataclasses import dataclass
from functools import partial, reduce

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from vision_transfer.models.ops.windows import (
    Margins,
    Strides,
    WindowPadding,
    margins_of,
    output_extents,
    pad_map,
    window_elements_at,
)

# Positions of a row that one step of the kernel's gradient sums. LLVM unrolls a sum of up to about 30 terms entirely
# and vectorises it over channels; a longer one it computes channel by channel, three times as slow.
POSITIONS = 14
# Products in such a step. XLA leaves larger sums to a library, and copies every shifted slice for it.
PRODUCTS = 4096
# Channels of a step are a multiple of a vector's length.
VECTOR = 16


@dataclass(frozen=True)
class Windows:
    """A depthwise convolution apart from its arrays: zeros around images, steps between windows."""

    margins: Margins
    strides: Strides


def depthwise_convolution(
    images: Float[Array, "batch height width channels"],
    kernel: Float[Array, "kernel_height kernel_width channels 1"],
    *,
    strides: Strides = (1, 1),
    padding: WindowPadding = "same",
    precision: lax.Precision | None = lax.Precision.HIGHEST,
) -> Float[Array, "batch new_height new_width channels"]:
    """Convolves each channel with its own kernel, without bias.

    `padding` is "valid", "same" (TensorFlow's; see `margins_of`) or ((top, bottom), (left, right)). `precision` is that
    of XLA's convolution; on a CPU sums are float32 for every input dtype, and rounded once.
    """
    windows = Windows(margins_of(padding, images.shape[1:3], kernel.shape[:2], strides), strides)

    def by_lax(images: Array, kernel: Array) -> Array:
        return lax.conv_general_dilated(
            images,
            kernel.swapaxes(2, 3),
            strides,
            windows.margins,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=images.shape[-1],
            precision=precision,
        )

    def by_products(images: Array, kernel: Array) -> Array:
        # jax's types for custom_vjp lose an argument
        return _shifted_products(windows, images, kernel)  # pyright: ignore[reportCallIssue]

    return lax.platform_dependent(images, kernel, cpu=by_products, default=by_lax)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _shifted_products(windows: Windows, images: Array, kernel: Array) -> Array:
    sizes = kernel.shape[:2]
    extents = output_extents(windows.margins, images.shape[1:3], sizes, windows.strides)
    # Without the barrier XLA computes what precedes the padding again for each product.
    padded = lax.optimization_barrier(pad_map(images, windows.margins))
    places = [(row, column) for row in range(sizes[0]) for column in range(sizes[1])]
    return _sum(
        [_widen(window_elements_at(padded, place, windows.strides, extents)) * _tap(kernel, place) for place in places]
    ).astype(images.dtype)


def _forward(windows: Windows, images: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _shifted_products(windows, images, kernel), (images, kernel)  # pyright: ignore[reportCallIssue]


def _backward(windows: Windows, residuals: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    images, kernel = residuals
    # Without the barrier the products evaluate what precedes the gradient again.
    gradient = lax.optimization_barrier(gradient)
    return _images_gradient(windows, images.shape, kernel, gradient), _kernel_gradient(
        windows, images, kernel, gradient
    )


_shifted_products.defvjp(_forward, _backward)


def _images_gradient(windows: Windows, shape: tuple[int, ...], kernel: Array, gradient: Array) -> Array:
    """Shifted products of the outputs' gradient, for each remainder of rows and columns divided by the strides.

    (Zeros between the gradient's elements would make that one convolution, of stride² times the products.)
    """
    axes = [
        _remainders(shape[axis + 1], kernel.shape[axis], windows.strides[axis], windows.margins[axis][0])
        for axis in range(2)
    ]
    before = [max(-first for taps in remainders for _, first in taps) for remainders in axes]
    counts = [-(-shape[axis + 1] // windows.strides[axis]) for axis in range(2)]
    lasts = [max(first for taps in axes[axis] for _, first in taps) + counts[axis] for axis in range(2)]
    margins = [(before[axis], lasts[axis] - gradient.shape[axis + 1]) for axis in range(2)]
    padded = lax.optimization_barrier(pad_map(gradient, (margins[0], margins[1])))

    def part(rows: list[tuple[int, int]], columns: list[tuple[int, int]]) -> Array:
        terms = [
            _widen(window_elements_at(padded, (before[0] + above, before[1] + left), (1, 1), (counts[0], counts[1])))
            * _tap(kernel, (row, column))
            for row, above in rows
            for column, left in columns
        ]
        if not terms:
            return jnp.zeros((shape[0], *counts, shape[3]), gradient.dtype)
        return _sum(terms).astype(gradient.dtype)

    parts = [jnp.stack([part(rows, columns) for columns in axes[1]], 3) for rows in axes[0]]
    whole = jnp.stack(parts, 2).reshape(
        shape[0], counts[0] * windows.strides[0], counts[1] * windows.strides[1], shape[3]
    )
    return whole[:, : shape[1], : shape[2]]


def _remainders(extent: int, size: int, stride: int, before: int) -> list[list[tuple[int, int]]]:
    """For each remainder the kernel's elements that reach such positions, each with the first output it stands in.

    Position `remainder + stride · j` is element `tap` of the window of output `first + j`.
    """
    return [
        [(tap, (remainder + before - tap) // stride) for tap in range((remainder + before) % stride, size, stride)]
        for remainder in range(stride)
    ]


def _kernel_gradient(windows: Windows, images: Array, kernel: Array, gradient: Array) -> Array:
    """For each element of the kernel, the sum over windows of its image element times the gradient.

    Summed in steps of a part of a row and of the channels, so that a step's operands stay in the first cache. A step
    has one sum for each column of the kernel. (One for each element compiles and runs 1.5 times as long.)
    """
    (rows, columns), strides = kernel.shape[:2], windows.strides
    batch, height, width, channels = gradient.shape
    parts = -(-width // POSITIONS)
    positions = -(-width // parts)
    group = _group(channels, PRODUCTS // (positions * rows))
    superfluous = parts * positions - width
    above, (left, right) = windows.margins
    padded = pad_map(images, (above, (left, right + superfluous * strides[1])))
    gradient = pad_map(gradient, ((0, 0), (0, superfluous)))
    read = (positions - 1) * strides[1] + columns

    def sum_group(first_channel: Array) -> Array:
        def step(index: Array, totals: list[Array]) -> list[Array]:
            image, row, part = index // (height * parts), index // parts % height, index % parts
            place = (image, row, part * positions, first_channel)
            outgoing = _widen(lax.dynamic_slice(gradient, place, (1, 1, positions, group)))
            place = (image, row * strides[0], part * (positions * strides[1]), first_channel)
            values = lax.dynamic_slice(padded, place, (1, rows, read, group))

            def sums(column: int) -> Array:
                elements = window_elements_at(values, (0, column), (1, strides[1]), (rows, positions))
                return jnp.sum(_widen(elements) * outgoing, (0, 2))

            return [total + sums(column) for column, total in enumerate(totals)]

        zeros = jnp.zeros((rows, group), jnp.promote_types(gradient.dtype, jnp.float32))
        return jnp.stack(lax.fori_loop(0, batch * height * parts, step, [zeros] * columns), 1)

    sums = lax.map(sum_group, jnp.arange(0, channels, group))
    return jnp.moveaxis(sums, 0, 2).reshape(kernel.shape).astype(kernel.dtype)


def _group(channels: int, most: int) -> int:
    """The largest divisor of `channels` up to `most` that is a multiple of a vector's length, or all channels."""
    fitting = [count for count in range(VECTOR, most + 1, VECTOR) if channels % count == 0]
    return max(fitting, default=channels)


def _tap(kernel: Array, place: tuple[int, int]) -> Array:
    return _widen(lax.slice(kernel, (*place, 0, 0), (place[0] + 1, place[1] + 1, *kernel.shape[2:]))).reshape(-1)


def _widen(values: Array) -> Array:
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))


def _sum(terms: list[Array]) -> Array:
    return reduce(lax.add, terms)
