"""Winograd's transforms of tiles: images to tiles, products to images, kernels to tiles, and their transposes.

A convolution F(m×m, 3×3) computes m×m outputs from (m+2)×(m+2) inputs with (m+2)² products instead of 9m²
(Winograd 1980; Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", 2016): y = Aᵀ[(G k Gᵀ) ⊙ (Bᵀ d B)]A.
The three matrices follow from m+1 interpolation points and infinity (Cook-Toom). The points determine the rounding
error: with the textbook's 0, ±1, ±2 it is up to 1e-5 of the largest output with 512 channels, with those below a fifth.

A transform is two passes, rows first, each a stack of sums of strided slices: XLA turns a pass into one loop vectorised
over channels. The transforms are jitted functions, so that layers of equal shape are traced once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

KERNEL_SIZE = 3
# Finite interpolation points by tile size, found by searching for the smallest error against float64 (rectified normal
# inputs, 64 and 256 channels): root mean square 6.4e-7 (4) and 1.3e-6 (5) of the outputs'; largest 2e-6 and 5e-6 of
# the largest output. The error of tiles of 6 is 1.2e-5 at best, too large here.
POINTS: dict[int, tuple[float, ...]] = {
    4: (0.0, 2 / 3, -2 / 3, 3 / 2, -3 / 2),
    5: (0.3, -0.3, 0.85, -0.85, 1.8, -1.8),
}


@dataclass(frozen=True)
class Transforms:
    """Cook-Toom matrices in float64: `output` (m, m+2), `kernel` (m+2, 3), `image` (m+2, m+2)."""

    output: np.ndarray
    kernel: np.ndarray
    image: np.ndarray


@cache
def transforms(tile: int) -> Transforms:
    """Matrices Aᵀ, G and Bᵀ of F(tile, 3)."""
    points = np.array(POINTS[tile])
    size = tile + KERNEL_SIZE - 1
    output = np.zeros((tile, size))
    kernel = np.zeros((size, KERNEL_SIZE))
    image = np.zeros((size, size))
    output[:, :-1] = points ** np.arange(tile)[:, None]
    output[-1, -1] = 1
    for row, point in enumerate(points):
        others = np.delete(points, row)
        image[row, :-1] = np.poly(others)[::-1]
        kernel[row] = point ** np.arange(KERNEL_SIZE) / np.prod(point - others)
    image[-1] = np.poly(points)[::-1]
    kernel[-1, -1] = 1
    image[np.abs(image) < 1e-12] = 0
    return Transforms(output, kernel, image)


def transform_kernel(kernel: Float[Array, "3 3 inputs outputs"], tile: int) -> Float[Array, "products inputs outputs"]:
    """G k Gᵀ for every pair of channels, (tile+2)² products first."""
    matrix = transforms(tile).kernel
    both = jnp.asarray(np.kron(matrix, matrix), kernel.dtype)
    flat = kernel.reshape(KERNEL_SIZE**2, -1)
    return lax.dot(both, flat, precision=lax.Precision.HIGHEST).reshape(-1, *kernel.shape[2:])


def transpose_transform_kernel(
    products: Float[Array, "products inputs outputs"], tile: int
) -> Float[Array, "3 3 inputs outputs"]:
    """The transpose of `transform_kernel`: gradient of the products to gradient of the kernel."""
    matrix = transforms(tile).kernel
    both = jnp.asarray(np.kron(matrix, matrix).T, products.dtype)
    flat = products.reshape(len(products), -1)
    gradient = lax.dot(both, flat, precision=lax.Precision.HIGHEST)
    return gradient.reshape(KERNEL_SIZE, KERNEL_SIZE, *products.shape[1:])


@partial(jax.jit, static_argnames="tile")
def transform_images(
    padded: Float[Array, "batch height width channels"], tile: int
) -> Float[Array, "products tiles channels"]:
    """Bᵀ d B of overlapping tiles of `padded`, whose height and width are multiples of `tile` plus 2."""
    matrix = transforms(tile).image
    size = tile + KERNEL_SIZE - 1
    down, across = ((extent - KERNEL_SIZE + 1) // tile for extent in padded.shape[1:3])
    rows = _sums(matrix, lambda offset: _strided(padded, 1, offset, down, tile), range(size))
    # Without the barrier XLA computes the first pass again for each use in the second, 1.7 times slower.
    rows = lax.optimization_barrier(jnp.stack(rows))
    both = _sums(matrix, lambda offset: _strided(rows, 3, offset, across, tile), range(size))
    return jnp.stack(both, 1).reshape(size * size, -1, padded.shape[-1])


@partial(jax.jit, static_argnames="tile")
def transform_gradients(
    gradients: Float[Array, "batch height width channels"], tile: int
) -> Float[Array, "products tiles channels"]:
    """A g Aᵀ of disjoint tiles of `gradients`, the transpose of the output transform."""
    matrix = transforms(tile).output.T
    size = tile + KERNEL_SIZE - 1
    down, across = (extent // tile for extent in gradients.shape[1:3])
    rows = _sums(matrix, lambda offset: _strided(gradients, 1, offset, down, tile), range(tile))
    rows = lax.optimization_barrier(jnp.stack(rows))
    both = _sums(matrix, lambda offset: _strided(rows, 3, offset, across, tile), range(tile))
    return jnp.stack(both, 1).reshape(size * size, -1, gradients.shape[-1])


@partial(jax.jit, static_argnames=("grid", "tile"))
def transform_products(
    products: Float[Array, "products tiles channels"], grid: tuple[int, int, int], tile: int
) -> list[Float[Array, "images down rows across channels"]]:
    """Aᵀ M A: one array per output column of a tile, for a grid of images, tiles down and tiles across.

    (One array per row and column compiles five times slower.)
    """
    matrix = transforms(tile).output
    size = tile + KERNEL_SIZE - 1
    by_row = products.reshape(size, size, *grid, products.shape[-1])
    rows = lax.optimization_barrier(jnp.stack(_sums(matrix, lambda row: by_row[row], range(size))))
    inner = rows.transpose(1, 2, 3, 0, 4, 5)
    return _sums(matrix, lambda column: inner[column], range(size))


def interleave(
    columns: Sequence[Float[Array, "images down rows across channels"]],
) -> Float[Array, "images height width channels"]:
    """Puts `columns` side by side in every tile."""
    stacked = jnp.stack(columns, 4)
    images, down, rows, across, count, channels = stacked.shape
    return stacked.reshape(images, down * rows, across * count, channels)


def _strided(values: Array, axis: int, offset: int, count: int, stride: int) -> Array:
    return lax.slice_in_dim(values, offset, offset + stride * (count - 1) + 1, stride, axis)


def _sums(matrix: np.ndarray, part: Callable[[int], Array], indices: Sequence[int]) -> list[Array]:
    """One weighted sum of the parts per row of `matrix`, without terms whose weight is zero."""
    sums = []
    for row in matrix:
        terms = [_times(row[index], part(index)) for index in indices if row[index] != 0]
        sums.append(reduce(lax.add, terms))
    return sums


def _times(factor: float, values: Array) -> Array:
    return values if factor == 1 else lax.mul(values, lax.full_like(values, factor))
